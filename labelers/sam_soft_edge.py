"""Edges as the paper that introduced Segment Anything finds them (Kirillov et al. 2023, arXiv 2304.02643, D.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.kinds import Image
from .contract.labeler import Batch, Labeler, Modality, Resources
from .sam.checkpoint import write_tiny_sam
from .sam.mask_generator import Found, MaskGeneratorParams, generate_candidates
from .sam.models import SAM_WEIGHTS, load_mask_model

if TYPE_CHECKING:
    from torch import Tensor


class SamSoftEdgeParams(BaseModel):
    """points_per_side: the grid has its square of points, of which each brings three masks. box_nms_thresh: of masks
    whose boxes' IoU is above, the one of the highest predicted IoU is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    points_per_side: int = Field(default=16, ge=1, le=256)
    box_nms_thresh: float = Field(default=0.7, ge=0, le=1)


class SamSoftEdge(Labeler):
    """How surely there is an edge, from the slopes of SAM's mask probabilities.

    `sam_soft_edge`: uint8 (height, width), 255 at the strongest edge of the image and 0 off edges. A grid of 16 x 16
    points, three masks each, none rejected by its quality; duplicates are suppressed; of every mask the Sobel slope of
    its probabilities, where it meets the mask's outer boundary; of these the maximum over masks, thinned by Canny's
    non-maximum suppression and scaled linearly. An image without a mask's boundary has no edges.
    """

    makes = (Modality("sam_soft_edge", Image(channels=1, content="intensity")),)
    on = "image"
    weights = SAM_WEIGHTS
    resources = Resources(cpus=1.0, gpus=0.5, memory=7 * 2**30)
    batch_size = 4
    autocast = "float16"  # of the image encoder; all that follows is float32
    Params: ClassVar[type[BaseModel]] = SamSoftEdgeParams

    def load(self, device: str) -> None:
        self._model = load_mask_model(str(self.weights_path), device)
        self._generator = MaskGeneratorParams(pred_iou_thresh=0, stability_score_thresh=0, **self.params.model_dump())

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        return write_tiny_sam(folder)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        import torch

        images = [np.ascontiguousarray(image) for image in batch.images or ()]
        with torch.inference_mode():
            found = generate_candidates(self._model, images, self._generator)
            return {"sam_soft_edge": [edges_of(one) for (one,) in found]}


def edges_of(found: Found) -> np.ndarray:
    """uint8 (height, width): the thinned edges of all masks of a photograph."""
    import torch

    size = found.canvas.rows.size, found.canvas.columns.size
    strongest, across_x, across_y = (found.logits.new_zeros(size) for _ in range(3))
    for chunk in found.canvas.chunks(len(found.logits), found.logits.device.type):
        logits = found.canvas.draw(found.logits[chunk]).transpose(1, 2)
        slope_x, slope_y = sobel(logits.sigmoid())
        slope, place = (torch.hypot(slope_x, slope_y) * outer_boundary(logits > 0)).max(dim=0)
        stronger = slope > strongest
        strongest = torch.where(stronger, slope, strongest)
        across_x = torch.where(stronger, slope_x.gather(0, place[None])[0], across_x)
        across_y = torch.where(stronger, slope_y.gather(0, place[None])[0], across_y)
    thin = thinned(*(part.cpu().numpy() for part in (strongest, across_x, across_y)))
    top = float(thin.max())
    return (thin * (255 / top if top > 0 else 0)).round().astype(np.uint8)


def sobel(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The slopes to the right and down, (n, height, width) each, of maps that go on beyond their borders unchanged."""
    from torch.nn.functional import pad

    wide = pad(maps[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    right = wide[:, :, 2:] - wide[:, :, :-2]
    down = wide[:, 2:] - wide[:, :-2]
    return (
        right[:, :-2] + 2 * right[:, 1:-1] + right[:, 2:],
        down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:],
    )


def outer_boundary(masks: Tensor) -> Tensor:
    """The pixels, bool (n, height, width), outside of a mask that have one of their eight neighbours inside of it."""
    from torch.nn.functional import max_pool2d

    grown = max_pool2d(masks[:, None].float(), kernel_size=3, stride=1, padding=1)[:, 0] > 0
    return grown & ~masks


def thinned(edges: np.ndarray, across_x: np.ndarray, across_y: np.ndarray) -> np.ndarray:
    """`edges`, float32 (height, width), where they are ridges, and 0 elsewhere: Canny's non-maximum suppression (1986).

    across_x, across_y: the direction across the edge, rounded to one of the four that neighbours lie in. A ridge is
    higher than its neighbour to the right or below and no lower than the opposite one.
    """
    height, width = edges.shape
    wide = np.pad(edges, 1)
    turns = (np.round(np.arctan2(across_y, across_x) / (np.pi / 4)).astype(int) % 4)[None]
    steps = ((1, 0), (1, 1), (0, 1), (-1, 1))  # x y, at 0, 45, 90 and 135 degrees

    def neighbours(sign: int) -> np.ndarray:
        all_four = [wide[1 + sign * y :, 1 + sign * x :][:height, :width] for x, y in steps]
        return np.take_along_axis(np.stack(all_four), turns, axis=0)[0]

    return np.where((edges > neighbours(1)) & (edges >= neighbours(-1)), edges, 0)
