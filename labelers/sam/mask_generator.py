"""Masks of everything in a photograph, from a grid of points: what SamAutomaticMaskGenerator does, in less time.

Grids, crops, filters, their order and their names are those of segment-anything's generator (Kirillov et al. 2023,
arXiv 2304.02643, appendix B). What makes the difference: masks that the predicted IoU rejects are never drawn; both
scalings of a mask's logits are one product with two banded matrices; a mask's area, stability and box come from its
logits at full size, which are then forgotten, and made again for the few masks that survive the removal of duplicates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..contract.instances import Mask
from .models import in_float32

if TYPE_CHECKING:
    from torch import Tensor

    from .models import MaskModel

_BLOCK = 64
"""Rows of a banded matrix that are multiplied at once."""
_NEAR_EDGE = 20.0
"""Pixels from a crop's edge within which a box is taken for cut off by it."""


class MaskGeneratorParams(BaseModel):
    """segment-anything's own names, meanings and defaults, but for points_per_side.

    points_per_side: the grid has its square of points. pred_iou_thresh: the quality that the network predicts for its
    mask must be above; 0 keeps all. stability_score_thresh: least IoU of the mask cut at logits of plus and minus
    stability_score_offset; 0 keeps all. box_nms_thresh: of masks whose boxes' IoU is above, the best is kept.
    crop_n_layers: layer n adds 4 ** n crops of the photograph that overlap by crop_overlap_ratio, with grids thinner by
    crop_n_points_downscale_factor ** n; crop_nms_thresh: as box_nms_thresh, between crops. min_mask_region_area:
    smaller holes are filled and smaller islands taken away, in pixels; 0 leaves them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    points_per_side: int = Field(default=7, ge=1, le=256)
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = Field(default=1.0, ge=0)
    box_nms_thresh: float = Field(default=0.7, ge=0, le=1)
    crop_n_layers: int = Field(default=0, ge=0, le=4)
    crop_nms_thresh: float = Field(default=0.7, ge=0, le=1)
    crop_overlap_ratio: float = Field(default=512 / 1500, ge=0, lt=1)
    crop_n_points_downscale_factor: int = Field(default=1, ge=1)
    min_mask_region_area: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Found:
    """N masks of one photograph or crop, on the model's device.

    quality, stability: (N,). boxes: (N, 4) as x0 y0 x1 y1 in pixels, the last ones covered. points: (N, 2), x y in
    pixels. logits: (N, rows, columns), which `canvas` draws. crop: its x0 y0 x1 y1 in the photograph.
    """

    quality: Tensor
    stability: Tensor
    boxes: Tensor
    points: Tensor
    logits: Tensor
    crop: tuple[int, int, int, int]
    canvas: Canvas

    @property
    def pixels(self) -> int:
        """How many the crop has."""
        return self.canvas.rows.size * self.canvas.columns.size

    def take(self, kept: Tensor) -> Found:
        """Those at the places `kept`, or where it is true."""
        parts = {name: getattr(self, name)[kept] for name in ("quality", "stability", "boxes", "points", "logits")}
        return replace(self, **parts)


@dataclass(frozen=True)
class Bands:
    """A matrix (size, length) that is zero but for a band: blocks of rows, each with the columns that it needs."""

    size: int
    length: int
    blocks: Sequence[tuple[int, int, Tensor]]

    @classmethod
    def of(cls, matrix: Tensor) -> Bands:
        """The matrix without the last columns that are all zero."""
        used = (matrix != 0).cpu().numpy()
        blocks = []
        for start in range(0, len(matrix), _BLOCK):
            columns = np.flatnonzero(used[start : start + _BLOCK].any(axis=0))
            low, high = int(columns[0]), int(columns[-1]) + 1
            blocks.append((start, low, matrix[start : start + _BLOCK, low:high].contiguous()))
        return cls(len(matrix), max(low + part.shape[1] for _, low, part in blocks), blocks)

    def __matmul__(self, x: Tensor) -> Tensor:
        """(n, length, k) to (n, size, k)."""
        import torch

        product = x.new_empty(len(x), self.size, x.shape[2])
        for start, low, part in self.blocks:
            rows, columns = part.shape
            torch.bmm(part.expand(len(x), -1, -1), x[:, low : low + columns], out=product[:, start : start + rows])
        return product


@dataclass(frozen=True)
class Canvas:
    """What draws a mask's logits at the size of the photograph or crop."""

    rows: Bands
    columns: Bands

    def draw(self, logits: Tensor) -> Tensor:
        """(n, rows, columns) at the decoder's resolution to (n, width, height): COCO's run-lengths go down columns."""
        with in_float32(logits.device.type):
            return self.columns @ (self.rows @ logits).transpose(1, 2)

    def chunks(self, count: int, device: str) -> Iterator[slice]:
        """Slices of `count` masks that are drawn together: on a CPU as many as its cache may hold."""
        pixels = 2**18 if device == "cpu" else 2**27
        step = max(1, pixels // (self.rows.size * self.columns.size))
        yield from (slice(start, start + step) for start in range(0, count, step))


@dataclass(frozen=True)
class Drawn:
    """N masks of one photograph, the best first, on the host.

    quality, stability: float32 (N,). boxes: (N, 4) as x0 y0 x1 y1 in pixels, the last ones covered. points: float64
    (N, 2), x y in pixels. bitmaps: bool (n, width, height) arrays that have N masks in all.
    """

    quality: np.ndarray
    stability: np.ndarray
    boxes: np.ndarray
    points: np.ndarray
    bitmaps: Sequence[np.ndarray]

    def encoded(self) -> list[Mask]:
        """The masks as COCO run-lengths."""
        from pycocotools import mask as coco

        masks = []
        for bitmaps in self.bitmaps:
            _, width, height = bitmaps.shape
            rles: Any = coco.encode(np.asfortranarray(bitmaps.view(np.uint8).transpose(2, 1, 0)))
            masks += [Mask(height, width, rle["counts"].decode("ascii")) for rle in rles]
        return masks


def generate_masks(model: MaskModel, images: Sequence[np.ndarray], params: MaskGeneratorParams) -> Iterator[Drawn]:
    """The masks of each image, uint8 (height, width, 3)."""
    for image, found in zip(images, generate_candidates(model, images, params), strict=True):
        yield _drawn(found, image.shape[:2], params)


def generate_candidates(
    model: MaskModel, images: Sequence[np.ndarray], params: MaskGeneratorParams
) -> Iterator[list[Found]]:
    """The masks found in each crop of each image. No more crops are encoded at once than there are images."""
    crops = [(index, *crop) for index, image in enumerate(images) for crop in crop_boxes(image.shape, params)]
    found: list[Found] = []
    step = model.images_at_once or len(images)
    for start in range(0, len(crops), step):
        part = crops[start : start + step]
        pixels = [np.ascontiguousarray(images[index][y0:y1, x0:x1]) for index, (x0, y0, x1, y1), _ in part]
        for (index, crop, layer), seen in zip(part, model.encode(pixels), strict=True):
            side = int(params.points_per_side / params.crop_n_points_downscale_factor**layer)
            found.append(find_in_crop(model, seen, images[index].shape[:2], crop, point_grid(side), params))
            if len(found) == len(crops) // len(images):
                yield found
                found = []


def find_in_crop(
    model: MaskModel,
    seen: Any,
    size: tuple[int, ...],
    crop: tuple[int, int, int, int],
    grid: np.ndarray,
    params: MaskGeneratorParams,
) -> Found:
    """The masks of a crop that pass all filters, the best first. seen: the encoded crop. size: of the photograph.
    grid: points (n, 2) as x y shares of the crop."""
    import torch
    from torchvision.ops import batched_nms

    x0, y0, x1, y1 = crop
    height, width = y1 - y0, x1 - x0
    canvas = canvas_of(model, height, width)
    points = grid * [width, height]
    parts = []
    with in_float32(model.device):
        prompts = model.prompts(points, height, width)
        for start in range(0, len(points), model.prompts_at_once):
            look = model.decoder.look(seen, prompts[start : start + model.prompts_at_once])
            threshold = params.pred_iou_thresh
            wanted = look.quality > threshold if threshold > 0 else torch.ones_like(look.quality, dtype=torch.bool)
            logits = model.decoder.draw(seen, look, wanted, canvas.rows.length, canvas.columns.length)
            kept, stability, boxes = measure(canvas, logits, params)
            prompt = wanted.nonzero()[:, 0].cpu()[kept.cpu()]
            places = torch.as_tensor(points)[start + prompt].to(logits.device)
            parts.append((look.quality[wanted][kept], stability[kept], boxes[kept], places, logits[kept]))
    quality, stability, boxes, places, logits = (torch.cat(column) for column in zip(*parts, strict=True))
    found = Found(quality, stability, boxes, places, logits, crop, canvas)
    found = found.take(~_cut_off(found.boxes, crop, size))
    groups = torch.zeros_like(found.quality)
    found = found.take(batched_nms(found.boxes.float(), found.quality, groups, params.box_nms_thresh))
    offset = torch.tensor([x0, y0, x0, y0], device=found.boxes.device)
    return replace(found, boxes=found.boxes + offset, points=found.points + offset[:2])


def measure(canvas: Canvas, logits: Tensor, params: MaskGeneratorParams) -> tuple[Tensor, Tensor, Tensor]:
    """Which of n masks are stable and not empty, bool (n,), their stability (n,) and boxes (n, 4).

    stability: the area above `stability_score_offset` over that above its negative, NaN where both are 0; the second
    area contains the first. Boxes of masks that aren't kept may be anything.
    """
    import torch

    kept = logits.new_zeros(len(logits), dtype=torch.bool)
    stability = logits.new_zeros(len(logits))
    boxes = logits.new_zeros(len(logits), 4, dtype=torch.int64)
    for chunk in canvas.chunks(len(logits), logits.device.type):
        drawn = canvas.draw(logits[chunk])
        is_above = torch.empty_like(drawn)  # of floats: quicker to fill and to sum than one of bools
        high, low = (
            torch.gt(drawn, offset, out=is_above).sum(dim=2).sum(dim=1, dtype=torch.float64)
            for offset in (params.stability_score_offset, -params.stability_score_offset)
        )
        stability[chunk] = (high / low).to(stability.dtype)
        kept[chunk] = low > 0
        if params.stability_score_thresh > 0:
            kept[chunk] &= stability[chunk] >= params.stability_score_thresh
        if kept[chunk].any():
            torch.gt(drawn, 0, out=is_above)
            columns, rows = is_above.sum(dim=2) > 0, is_above.sum(dim=1) > 0
            boxes[chunk] = torch.stack([*_extent(columns), *_extent(rows)], dim=1)[:, [0, 2, 1, 3]]
            kept[chunk] &= rows.any(dim=1)
    return kept, stability, boxes


def _extent(covered: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last place that is true in each row of (n, length)."""
    import torch

    covered = covered.to(torch.uint8)
    return covered.argmax(dim=1), covered.shape[1] - 1 - covered.flip(1).argmax(dim=1)


def _cut_off(boxes: Tensor, crop: tuple[int, int, int, int], size: tuple[int, ...]) -> Tensor:
    """Which boxes, in the crop's pixels, come near an edge of the crop that isn't one of the photograph."""
    import torch

    edges = torch.tensor(crop, dtype=torch.float, device=boxes.device)
    borders = torch.tensor([0, 0, size[1], size[0]], dtype=torch.float, device=boxes.device)
    placed = boxes + edges[[0, 1, 0, 1]]
    return (((placed - edges).abs() <= _NEAR_EDGE) & ((placed - borders).abs() > _NEAR_EDGE)).any(dim=1)


def _drawn(found: Sequence[Found], size: tuple[int, ...], params: MaskGeneratorParams) -> Drawn:
    """The masks of all crops of one photograph without duplicates among crops, of which the smaller crop's is kept."""
    import torch
    from torchvision.ops import batched_nms

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(one, name) for one in found])

    boxes = joined("boxes")
    order = torch.arange(len(boxes), device=boxes.device)
    if len(found) > 1:
        preference = torch.cat([one.quality.new_full((len(one.quality),), 1 / one.pixels) for one in found])
        order = batched_nms(boxes.float(), preference, torch.zeros_like(preference), params.crop_nms_thresh)
    owners = [(one, place) for one in found for place in range(len(one.quality))]
    survivors = groupby((owners[place] for place in order.tolist()), key=lambda owner: id(owner[0]))
    bitmaps = [bitmap for _, group in survivors for bitmap in _bitmaps(list(group), size)]
    quality, stability, points = (joined(name)[order].cpu().numpy() for name in ("quality", "stability", "points"))
    drawn = Drawn(quality, stability, boxes[order].cpu().numpy(), points, bitmaps)
    threshold = max(params.box_nms_thresh, params.crop_nms_thresh)
    return drawn if params.min_mask_region_area == 0 else _tidied(drawn, params.min_mask_region_area, threshold)


def _bitmaps(masks: Sequence[tuple[Found, int]], size: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Masks that are all of one crop, drawn on the whole photograph: bool (n, width, height) arrays."""
    found, places = masks[0][0], [place for _, place in masks]
    x0, y0, x1, y1 = found.crop
    for chunk in found.canvas.chunks(len(places), found.logits.device.type):
        bitmaps = (found.canvas.draw(found.logits[places[chunk]]) > 0).cpu().numpy()
        if bitmaps.shape[1:] != (size[1], size[0]):
            whole = np.zeros((len(bitmaps), size[1], size[0]), bool)
            whole[:, x0:x1, y0:y1] = bitmaps
            bitmaps = whole
        yield bitmaps


def _tidied(drawn: Drawn, min_area: int, nms_threshold: float) -> Drawn:
    """Without small holes and islands, nor the duplicates that this makes, of which one that had none stays."""
    import torch
    from torchvision.ops import batched_nms

    masks, untouched = [], []
    for mask in (bitmap.T for bitmaps in drawn.bitmaps for bitmap in bitmaps):
        filled, had_holes = without_holes(mask, min_area)
        tidy, had_islands = without_islands(filled, min_area)
        masks.append(tidy)
        untouched.append(not (had_holes or had_islands))
    boxes = np.array([_box(mask) for mask in masks], np.int64).reshape(-1, 4)
    scores = torch.tensor(untouched).float()
    order = batched_nms(torch.from_numpy(boxes).float(), scores, torch.zeros_like(scores), nms_threshold).tolist()
    return Drawn(
        drawn.quality[order],
        drawn.stability[order],
        boxes[order],
        drawn.points[order],
        [masks[place].T[None] for place in order],
    )


def without_holes(mask: np.ndarray, min_area: int) -> tuple[np.ndarray, bool]:
    """A mask, bool (height, width), with its holes of less than min_area pixels filled, and whether there were any.

    Pixels that touch at a corner are connected.
    """
    regions, areas = _regions(~mask)
    small = areas < min_area
    return mask | small[regions], bool(small.any())


def without_islands(mask: np.ndarray, min_area: int) -> tuple[np.ndarray, bool]:
    """A mask without its islands of less than min_area pixels, and whether there were any. Where all of them are less,
    the largest stays."""
    regions, areas = _regions(mask)
    small = areas < min_area
    kept = ~small
    kept[0] = False
    if small.any() and not kept.any():
        kept[1 + areas[1:].argmax()] = True
    return kept[regions], bool(small.any())


def _regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected regions of a mask by number, 0 outside of it, and the area of each, that of 0 taken for endless."""
    import cv2

    _, regions, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = statistics[:, cv2.CC_STAT_AREA].astype(np.float64)
    areas[0] = np.inf
    return regions, areas


def _box(mask: np.ndarray) -> list[int]:
    """x0 y0 x1 y1, the last ones covered, of a mask that isn't empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(place) for place in (columns[0], rows[0], columns[-1], rows[-1])]


def canvas_of(model: MaskModel, height: int, width: int) -> Canvas:
    """What draws masks of photographs of this size."""
    rows, columns = model.spread(height, width)
    return Canvas(Bands.of(rows), Bands.of(columns))


def point_grid(side: int) -> np.ndarray:
    """The centres of side x side equal cells, (side * side, 2) as x y in [0, 1], row by row."""
    centres = np.linspace(1 / (2 * side), 1 - 1 / (2 * side), side)
    return np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)


def crop_boxes(shape: tuple[int, ...], params: MaskGeneratorParams) -> Iterator[tuple[tuple[int, int, int, int], int]]:
    """Crops as x0 y0 x1 y1 and their layers: the whole photograph, then those of layer 1, 2, ...

    shape: (height, width, ...) of the photograph.
    """
    height, width = shape[:2]
    yield (0, 0, width, height), 0
    for layer in range(1, params.crop_n_layers + 1):
        count = 2**layer
        overlap = int(params.crop_overlap_ratio * min(height, width) * (2 / count))
        crop_width = math.ceil((overlap * (count - 1) + width) / count)
        crop_height = math.ceil((overlap * (count - 1) + height) / count)
        for column, row in product(range(count), range(count)):
            x0, y0 = column * (crop_width - overlap), row * (crop_height - overlap)
            yield (x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height)), layer
