"""Labels as ml-4m's transforms read them (fourm/data/modality_transforms.py at 4600165), for the modalities that it
turns into tokens itself."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ...labelers.contract.codecs import to_png
from ...labelers.contract.images import decode_image, read_format
from ...labelers.contract.instances import InstanceSet

Writer: TypeAlias = Callable[[Sequence[Any]], tuple[str, bytes]]
"""Extension and content for the labels of a sample, one for each view; those of whole images are all the same."""

_READ = {"JPEG": "jpg", "PNG": "png"}
"""Extensions of the formats that it reads; it turns no image as its EXIF says."""


def upright(image: bytes) -> tuple[str, bytes]:
    """Extension and bytes of an image of the corpus: as it is where ml-4m reads it so, else upright and as PNG."""
    name, is_upright = read_format(image)
    extension = _READ.get(name) if is_upright else None
    return (extension, image) if extension else ("png", to_png(decode_image(image)))


def _per_view(labels: Sequence[Any]) -> tuple[str, bytes]:
    return "json", _json(list(labels))


def _detections(labels: Sequence[InstanceSet]) -> tuple[str, bytes]:
    """Of the whole image, which ml-4m crops itself."""
    found = labels[0]
    scores = np.ones(len(found)) if found.scores is None else found.scores
    instances = [
        {"boxes": [float(one) for one in box], "class_name": name, "score": float(score)}
        for box, name, score in zip(found.boxes, found.labels, scores, strict=True)
    ]
    return "json", _json({"instances": instances})


def _metadata(labels: Sequence[Mapping[str, Any]]) -> tuple[str, bytes]:
    return "json", _json({name: value for name, value in labels[0].items() if value is not None})


def _embeddings(labels: Sequence[np.ndarray]) -> tuple[str, bytes]:
    """emb: float32 (1, tokens, dim); mask_valid: bool (1, tokens), all true."""
    buffer = io.BytesIO()
    np.savez(buffer, emb=labels[0][None].astype(np.float32), mask_valid=np.ones((1, len(labels[0])), bool))
    return "npz", buffer.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


WRITERS: dict[str, Writer] = {
    "caption": _per_view,
    "color_palette": _per_view,
    "det": _detections,
    "metadata": _metadata,
    "t5_caption": _embeddings,
}
