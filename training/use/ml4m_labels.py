"""Labels as ml-4m's transforms read them (fourm/data/modality_transforms.py at 4600165), for the modalities that it
turns into tokens itself."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ...labelers.contract.codecs import to_npy, to_png
from ...labelers.contract.images import decode_image, read_format
from ...labelers.contract.instances import InstanceSet
from ...labelers.contract.views import View
from ...pipeline.dataset.cards import ModalityCard
from ...tokenizers.contract.registry import tokenizer_for
from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.instances.instance_text import InstancesText
from ...tokenizers.instances.pose_text import PosesText
from .ml4m_instances import polygons_array, poses_json


@dataclass(frozen=True)
class Kept:
    """What is kept of a sample. labels: one for each view; those of whole images are all the same, and not cropped.
    views: the crops. tokenizer: the dataset's own, of modalities in CODED; None of others."""

    card: ModalityCard
    labels: Sequence[Any]
    views: Sequence[View]
    tokenizer: Tokenizer | None


Writer: TypeAlias = Callable[[Kept], tuple[str, bytes]]
"""Extension and content for the labels of a sample."""

CODED: dict[str, type[Tokenizer]] = {"sam_instance": InstancesText, "human_poses": PosesText}
"""Of which ml-4m reads ids beside the labels, and the tokenizers that have them."""

WHOLE = ("det", "human_poses")
"""Of whole images: ml-4m crops their boxes itself, for which it has to see the pixels."""

_READ = {"JPEG": "jpg", "PNG": "png"}
"""Extensions of the formats that it reads; it turns no image as its EXIF says."""


def refusal(name: str, card: ModalityCard) -> str:
    """Why labels can't be written for ml-4m; "" where they can."""
    if not card.keeps_labels:
        return "ml-4m tokenises it itself, and its labels aren't kept (`keep: both`)"
    if name in WHOLE and card.on == "view":
        return "ml-4m crops the boxes of whole images itself, and these are of views"
    if name in CODED and not _has_codes(name, card):
        return "ml-4m reads it with the codes of its masks or poses, and it has no tokenizer that makes such"
    return ""


def _has_codes(name: str, card: ModalityCard) -> bool:
    if card.tokens is None or card.tokens.spec is None:
        return False
    made = issubclass(tokenizer_for(card.tokens.tokenizer, card.label_kind), CODED[name])
    return made and (name != "sam_instance" or card.kind["masks"])


def upright(image: bytes) -> tuple[str, bytes]:
    """Extension and bytes of an image of the corpus: as it is where ml-4m reads it so, else upright and as PNG."""
    name, is_upright = read_format(image)
    extension = _READ.get(name) if is_upright else None
    return (extension, image) if extension else ("png", to_png(decode_image(image)))


def _per_view(kept: Kept) -> tuple[str, bytes]:
    return "json", _json(list(kept.labels))


def _detections(kept: Kept) -> tuple[str, bytes]:
    found: InstanceSet = kept.labels[0]
    scores = np.ones(len(found)) if found.scores is None else found.scores
    instances = [
        {"boxes": [float(one) for one in box], "class_name": name, "score": float(score)}
        for box, name, score in zip(found.boxes, found.labels, scores, strict=True)
    ]
    return "json", _json({"instances": instances})


def _metadata(kept: Kept) -> tuple[str, bytes]:
    label: Mapping[str, Any] = kept.labels[0]
    return "json", _json({name: value for name, value in label.items() if value is not None})


def _embeddings(kept: Kept) -> tuple[str, bytes]:
    """emb: float32 (1, tokens, dim); mask_valid: bool (1, tokens), all true."""
    vectors: np.ndarray = kept.labels[0]
    buffer = io.BytesIO()
    np.savez(buffer, emb=vectors[None].astype(np.float32), mask_valid=np.ones((1, len(vectors)), bool))
    return "npz", buffer.getvalue()


def _masks(kept: Kept) -> tuple[str, bytes]:
    assert isinstance(kept.tokenizer, InstancesText)
    kind = kept.card.label_kind
    seen = [kind.seen_by(view, label, kept.card.on) for view, label in zip(kept.views, kept.labels, strict=True)]
    drawn = [one.take([at for at, mask in enumerate(one.masks) if mask.to_array().any()]) for one in seen]
    return "npy", to_npy(polygons_array(drawn, [kept.tokenizer.codes(one) for one in drawn]))


def _poses(kept: Kept) -> tuple[str, bytes]:
    assert isinstance(kept.tokenizer, PosesText)
    people: InstanceSet = kept.labels[0]
    view = kept.views[0]
    return "json", poses_json(people, kept.tokenizer.codes(people), view.image_height, view.image_width)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


WRITERS: dict[str, Writer] = {
    "caption": _per_view,
    "color_palette": _per_view,
    "det": _detections,
    "human_poses": _poses,
    "metadata": _metadata,
    "sam_instance": _masks,
    "t5_caption": _embeddings,
}
