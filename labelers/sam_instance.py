"""Masks of everything in the image by Segment Anything (Kirillov et al. 2023, arXiv 2304.02643) or SAM 2.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field

from .contract.instances import InstanceSet, Mask
from .contract.kinds import Instances
from .contract.labeler import Batch, Labeler, Modality, Resources
from .networks.extras import naming_extras
from .sam.checkpoint import write_tiny_sam
from .sam.mask_generator import Drawn, MaskGeneratorParams, generate_masks
from .sam.models import SAM_WEIGHTS, SamMasks, load_mask_model


class SamInstanceParams(MaskGeneratorParams):
    """Beside segment-anything's own parameters (see MaskGeneratorParams):

    max_instances: only this many masks are kept, those of the highest predicted IoU; None keeps all. min_box_area:
    masks whose box is smaller are dropped, as a share of the image; 4M-21 has at most 20 of at least 0.0005.
    backend: "tokenloom", or "reference" for segment-anything's own generator, image by image (the first SAM alone).
    """

    max_instances: int | None = Field(default=None, ge=1)
    min_box_area: float = Field(default=0.0, ge=0, lt=1)
    backend: Literal["tokenloom", "reference"] = "tokenloom"


class SamInstance(Labeler):
    """Masks of everything in the image by SAM or SAM 2.1, the surest first, without class names.

    `sam_instance`: Instances labelled "object" with masks of the image's size. A score is the IoU that SAM predicts for
    its mask; `stability` is the mask's stability score; `point` the prompt that it was made from, as x y shares of the
    image, or of the view, outside of which it may lie. Equal to segment-anything's SamAutomaticMaskGenerator with the
    same parameters: Pillow's bilinear resize of the bytes to a longest side of 1024, predicted IoU, stability, boxes
    cut off by a crop, and non-maximum suppression. SAM 2 sees the image through transformers' Sam2ImageProcessor
    (torchvision's resize).

    Weights: a .pth or .safetensors file of segment-anything, or a folder or hub id of SAM 2 or 2.1.
    """

    makes = (
        Modality(
            "sam_instance",
            Instances(masks=True, scores=True, attributes={"stability": (), "point": (2,)}, points=("point",)),
        ),
    )
    on = "image"
    weights = SAM_WEIGHTS
    # 641 M parameters in float32, and the 16 heads' attention over 64 x 64 places a few times over (estimated).
    resources = Resources(cpus=1.0, gpus=0.5, memory=7 * 2**30)
    batch_size = 4
    autocast = "float16"  # of the image encoder; all that follows is float32
    Params: ClassVar[type[BaseModel]] = SamInstanceParams

    def load(self, device: str) -> None:
        with naming_extras():
            import pycocotools  # noqa: F401
            import torchvision  # noqa: F401
        self._model = load_mask_model(str(self.weights_path), device)
        if self.params.backend == "reference":
            if not isinstance(self._model, SamMasks):
                raise ValueError(
                    f"sam_instance: segment-anything's generator, which `backend: reference` asks for, can't run "
                    f"{self.weights_path}: give a checkpoint of the first SAM, or leave out `backend`"
                )
            self._reference = _reference_generator(self._model.network, self.params)

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        return write_tiny_sam(folder)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        import torch

        images = [np.ascontiguousarray(image) for image in batch.images or ()]
        with torch.inference_mode(), ThreadPoolExecutor(1) as writer:
            if self.params.backend == "reference":
                labels = [self._label_by_reference(image) for image in images]
            else:
                drawn = generate_masks(self._model, images, self.params)
                pairs = zip(drawn, images, strict=True)
                # run-lengths are written while the model looks at the next image
                jobs = [writer.submit(self._label, one, image.shape[:2]) for one, image in pairs]
                labels = [job.result() for job in jobs]
        return {"sam_instance": labels}

    def _label(self, drawn: Drawn, size: tuple[int, ...]) -> InstanceSet:
        return self._chosen(size, drawn.boxes, drawn.encoded(), drawn.quality, drawn.stability, drawn.points)

    def _label_by_reference(self, image: np.ndarray) -> InstanceSet:
        found = self._reference.generate(image)
        boxes = np.array([one["bbox"] for one in found]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [Mask(image.shape[0], image.shape[1], one["segmentation"]["counts"]) for one in found]
        quality, stability = ([one[name] for one in found] for name in ("predicted_iou", "stability_score"))
        points = np.array([one["point_coords"][0] for one in found]).reshape(-1, 2)
        return self._chosen(image.shape[:2], boxes, masks, np.array(quality), np.array(stability), points)

    def _chosen(
        self,
        size: tuple[int, ...],
        boxes: np.ndarray,
        masks: Sequence[Mask],
        quality: np.ndarray,
        stability: np.ndarray,
        points: np.ndarray,
    ) -> InstanceSet:
        """boxes: x0 y0 x1 y1 in pixels, the last ones covered."""
        height, width = size
        shares = (boxes + np.array([0, 0, 1, 1])) / [width, height, width, height]
        found = InstanceSet(
            shares.astype(np.float32),
            ["object"] * len(boxes),
            scores=quality.astype(np.float32),
            masks=masks,
            attributes={
                "stability": stability.astype(np.float32),
                "point": (points / [width, height]).astype(np.float32),
            },
        )
        large = (shares[:, 2] - shares[:, 0]) * (shares[:, 3] - shares[:, 1]) >= self.params.min_box_area
        order = np.argsort(-quality, kind="stable") if self.params.max_instances else np.arange(len(boxes))
        return found.take(order[large[order]][: self.params.max_instances])


def _reference_generator(network: Any, params: MaskGeneratorParams) -> Any:
    from segment_anything import SamAutomaticMaskGenerator

    return SamAutomaticMaskGenerator(
        network, output_mode="coco_rle", **params.model_dump(include=set(MaskGeneratorParams.model_fields))
    )
