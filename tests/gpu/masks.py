"""The SAM generator on a device against segment-anything's own: the same network, photographs and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from full_size import sam
from meters import spent
from PIL import Image
from sam import PHOTOGRAPHS, best_ious, by_reference, by_tokenloom
from tokenloom.labelers.networks.hub import package_path
from tokenloom.labelers.sam.checkpoint import write_tiny_sam
from tokenloom.labelers.sam.mask_generator import MaskGeneratorParams
from tokenloom.labelers.sam.models import SamMasks

ALIKE = 0.99
"""IoU from which two masks are the same."""


def compared(folder: Path, device: str, quick: bool) -> dict[str, Any]:
    """Of a small network whose masks pass the usual filters, and of ViT-H with random weights, whose masks are noise
    and which therefore drops none for its quality. Both in float32.

    Raises RuntimeError where a mask of the small one isn't the reference's.
    """
    small = folder / "small"
    small.mkdir()
    images = _photographs(1 if quick else len(PHOTOGRAPHS))
    usual = MaskGeneratorParams(points_per_side=7 if quick else 16)
    found = {"small": _against(SamMasks(str(write_tiny_sam(small)), device), images, usual, device)}
    if found["small"]["alike"] < 1 or not found["small"]["masks"]:
        raise RuntimeError(f"the generators differ: {found['small']}")
    if not quick:
        every = MaskGeneratorParams(points_per_side=16, pred_iou_thresh=0, stability_score_thresh=0)
        found["vit_h"] = _against(SamMasks(str(sam(folder / "large")), device), images, every, device)
    return found


def _against(model: SamMasks, images: Sequence[np.ndarray], params: MaskGeneratorParams, device: str) -> dict[str, Any]:
    """masks: of our generator, and of the reference. alike: the share of both that have their like on the other side.
    images per second: of the second time, by the median of the images."""
    from segment_anything import SamAutomaticMaskGenerator

    reference = SamAutomaticMaskGenerator(model.network, output_mode="coco_rle", **params.model_dump())
    ours, theirs = [], []
    seconds: dict[str, list[float]] = {"tokenloom": [], "reference": []}
    ious: list[float] = []
    for image in images:
        ours.append(by_tokenloom(model, image, params))
        theirs.append(by_reference(reference, image))
        seconds["tokenloom"].append(spent(device, lambda i=image: by_tokenloom(model, i, params)).seconds)
        seconds["reference"].append(spent(device, lambda i=image: by_reference(reference, i)).seconds)
        ious += best_ious(ours[-1], theirs[-1])
    rates = {f"{who}_per_second": round(1 / median(times), 3) for who, times in seconds.items()}
    return {
        "masks": sum(map(len, ours)),
        "reference_masks": sum(map(len, theirs)),
        "alike": round(float(np.mean([iou >= ALIKE for iou in ious])), 4) if ious else 1.0,
        "least_iou": round(min(ious, default=1.0), 4),
        **rates,
        "times_as_fast": round(median(seconds["reference"]) / median(seconds["tokenloom"]), 2),
    }


def _photographs(count: int) -> list[np.ndarray]:
    paths = [package_path(f"package:{path}") for path in PHOTOGRAPHS[:count]]
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]
