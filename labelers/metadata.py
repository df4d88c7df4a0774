"""Numbers about an image, 21 in all: its size and colours, its caption, and what other labelers found in it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from PIL import Image

from .contract.instances import InstanceSet
from .contract.kinds import Record
from .contract.labeler import Batch, Labeler, Modality
from .contract.views import View

FIELDS = (
    "original_width",
    "original_height",
    "caption_n_chars",
    "caption_n_words",
    "caption_n_sentences",
    "n_humans",
    "n_sam_instances",
    "n_coco_instances",
    "coco_instance_diversity",
    "colorfulness",
    "brightness",
    "contrast",
    "saturation",
    "entropy",
    "walkability",
    "objectness",
    "semantic_diversity",
    "geometric_complexity",
    "occlusion_score",
    "watermark_score",
    "aesthetic_score",
)

WALKABLE = (87, 90, 97, 100, 102, 105, 106, 122, 123, 125, 126, 132)
"""COCO panoptic classes, counted from 0, that one can walk on: floor, road, sand, grass, ... (4M-21, appendix D.1)."""

BACKGROUND = (87, 90, *range(96, 104), 105, 106, *range(109, 114), *range(117, 120), *range(122, 127), 129, 131, 132)
"""COCO panoptic classes, counted from 0, that aren't objects: sky, walls, water, ground, ... (same place)."""

VOID = 255
"""The class of pixels that have none."""

_SENTENCE_END = re.compile(r"[.!?\u2026]+(?=\s|$)|[\u3002\uff01\uff1f]+")


class Metadata(Labeler):
    """Numbers about the image, its caption and what is in it: 4M-21's 21 fields (arXiv 2406.09406, appendix D).

    `metadata`: a record of those fields that can be known. Of the whole image:

    - original_width, original_height: in pixels, upright.
    - caption_n_chars, caption_n_words (between white space), caption_n_sentences (see `count_sentences`).
    - watermark_score, aesthetic_score: the corpus fields of these names, where they are numbers.

    Of the view, from its pixels (0..255):

    - brightness, contrast: mean and standard deviation of the luma (ITU-R 601).
    - entropy: of the luma's histogram, in bits. saturation: mean of S in HSV. colorfulness: see `colorfulness`.

    Of the view, from other modalities, where the recipe has them:

    - n_humans: instances in human_poses. n_sam_instances: in sam_instance.
    - n_coco_instances, coco_instance_diversity: instances in det, and their distinct classes.
    - walkability, objectness, semantic_diversity: from semseg_coco, see `segmentation_fields`.
    - geometric_complexity: from normal, see `geometric_complexity`.
    - occlusion_score: from depth, see `occlusion_score`.

    The paper leaves open the formulas of contrast, entropy, geometric_complexity and occlusion_score; these are ours,
    chosen for its ranges. Numbers that aren't whole are rounded to 4 decimals.
    """

    makes = (Modality("metadata", Record(FIELDS), tokenizer="metadata"),)
    wants = ("caption", "human_poses", "sam_instance", "det", "semseg_coco", "normal", "depth")

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        assert batch.images is not None
        others = {name: batch.labels[name] for name in self.wants if name in batch.labels}
        return {
            "metadata": [
                _record(image, view, fields, {name: labels[index] for name, labels in others.items()})
                for index, (image, view, fields) in enumerate(zip(batch.images, batch.views, batch.fields, strict=True))
            ]
        }


def _record(image: np.ndarray, view: View, fields: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {"original_width": view.image_width, "original_height": view.image_height}
    known |= pixel_fields(image)
    for name, measure in _MEASURES.items():
        if others.get(name) is not None:
            known |= measure(others[name])
    for name in ("watermark_score", "aesthetic_score"):
        score = fields.get(name)
        if isinstance(score, Real) and not isinstance(score, bool) and math.isfinite(score):
            known[name] = float(score)
    return {
        name: round(known[name], 4) if isinstance(known[name], float) else known[name]
        for name in FIELDS
        if name in known
    }


def pixel_fields(image: np.ndarray) -> dict[str, float]:
    """brightness, contrast, saturation, entropy and colorfulness of uint8 (height, width, 3) RGB.

    Pillow's conversions are of integers, and so are the sums here: the numbers don't depend on the machine.
    """
    picture = Image.fromarray(image)
    luma = np.array(picture.convert("L").histogram(), np.int64)
    saturation = np.array(picture.convert("HSV").getchannel("S").histogram(), np.int64)
    mean, deviation = _mean_and_deviation(np.arange(256), luma)
    shares = luma[luma > 0] / luma.sum()
    return {
        "brightness": mean,
        "contrast": deviation,
        "saturation": _mean_and_deviation(np.arange(256), saturation)[0],
        "entropy": -math.fsum(share * math.log2(share) for share in shares.tolist()) + 0.0,
        "colorfulness": colorfulness(image),
    }


def colorfulness(image: np.ndarray) -> float:
    """Hasler and Suesstrunk's M3 (Measuring colourfulness in natural images, 2003) of uint8 RGB: 0 is grey, 109 lively.

    sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2), with rg = R - G and yb = (R + G) / 2 - B.
    """
    red, green, blue = (image[..., channel].astype(np.int64).ravel() for channel in range(3))
    rg_mean, rg_deviation = _mean_and_deviation(red - green)
    yb_mean, yb_deviation = _mean_and_deviation(red + green - 2 * blue)  # twice yb, to stay whole
    return math.hypot(rg_deviation, yb_deviation / 2) + 0.3 * math.hypot(rg_mean, yb_mean / 2)


def _mean_and_deviation(values: np.ndarray, counts: np.ndarray | int = 1) -> tuple[float, float]:
    """Mean and standard deviation of integers, each taken `counts` times. The sums are exact."""
    number = int((counts + 0 * values).sum())
    total, squares = int((counts * values).sum()), int((counts * values * values).sum())
    return total / number, math.sqrt(squares * number - total * total) / number


def count_sentences(text: str) -> int:
    """How often a sentence ends: at . ! ? before white space, at their Chinese forms anywhere, where the text ends."""
    ends = list(_SENTENCE_END.finditer(text))
    rest = text[ends[-1].end() :] if ends else text
    return len(ends) + bool(rest.strip())


def segmentation_fields(classes: np.ndarray) -> dict[str, float]:
    """walkability, objectness, semantic_diversity of a map of COCO panoptic classes, counted from 0, VOID for none.

    Share of the pixels that are WALKABLE; share that have a class, and not a BACKGROUND one (the paper prints that list
    for objectness, which it can only be the complement of); number of classes.
    """
    present, counts = np.unique(classes, return_counts=True)
    counts = dict(zip(present.tolist(), counts.tolist(), strict=True))
    background = {VOID, *BACKGROUND}
    return {
        "walkability": sum(counts.get(name, 0) for name in WALKABLE) / classes.size,
        "objectness": sum(count for name, count in counts.items() if name not in background) / classes.size,
        "semantic_diversity": len(counts.keys() - {VOID}),
    }


def geometric_complexity(normals: np.ndarray) -> float | None:
    """Spherical variance of normals (height, width, 3): 1 - |mean of the unit vectors|, 0 for one flat surface.

    normals: floats in [-1, 1], or (n + 1) / 2 as uint8 or uint16. Vectors of no length count as unknown; None where
    all are. (Mardia and Jupp, Directional Statistics, 2000.)
    """
    vectors = normals.reshape(-1, 3).astype(np.float64)
    if normals.dtype.kind == "u":
        vectors = vectors / np.iinfo(normals.dtype).max * 2 - 1
    lengths = np.linalg.norm(vectors, axis=1)
    known = lengths > 0.05  # the middle grey of an 8-bit map, which means unknown, lies 0.007 off zero
    if not known.any():
        return None
    return max(0.0, 1 - float(np.linalg.norm((vectors[known] / lengths[known, None]).mean(axis=0))))


def occlusion_score(depth: np.ndarray) -> float:
    """Share of the pixels of a depth map (height, width), scaled to [0, 1], whose Sobel gradient is above 0.3.

    The 3 x 3 kernel is the plain one, weights 1 2 1: a step of 0.075 of the depth's range passes. The depth is taken as
    it comes: in metres, steps far away count as much as near ones; of inverse depth, which most relative estimators
    give, near ones count more. Scores of the two aren't comparable.
    """
    import cv2

    values = depth.astype(np.float64)
    reach = values.max() - values.min()
    if reach == 0:
        return 0.0
    scaled = (values - values.min()) / reach
    across, down = (cv2.Sobel(scaled, cv2.CV_64F, *order, ksize=3) for order in ((1, 0), (0, 1)))
    return float((np.hypot(across, down) > 0.3).mean())


def _caption_fields(caption: str) -> dict[str, Any]:
    return {
        "caption_n_chars": len(caption),
        "caption_n_words": len(caption.split()),
        "caption_n_sentences": count_sentences(caption),
    }


def _detection_fields(instances: InstanceSet) -> dict[str, Any]:
    return {"n_coco_instances": len(instances), "coco_instance_diversity": len(set(instances.labels))}


def _normal_fields(normals: np.ndarray) -> dict[str, Any]:
    complexity = geometric_complexity(normals)
    return {} if complexity is None else {"geometric_complexity": complexity}


_MEASURES = {
    "caption": _caption_fields,
    "human_poses": lambda instances: {"n_humans": len(instances)},
    "sam_instance": lambda instances: {"n_sam_instances": len(instances)},
    "det": _detection_fields,
    "semseg_coco": segmentation_fields,
    "normal": _normal_fields,
    "depth": lambda depth: {"occlusion_score": occlusion_score(depth)},
}
"""For every modality that Metadata wants, the fields that its label gives."""
