"""Masks of instances as 16 codes each: the mask in its box at 64 x 64 pixels, cut into 16 patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...labelers.contract.instances import Mask
from ..contract.special_tokens import COORDINATE_BINS
from ..contract.vocabulary import Coordinate
from ..vq.input_contract import MASK_SIDE

PATCH_SIDE = 16
MASK_TOKENS = (MASK_SIDE // PATCH_SIDE) ** 2
MASK_CODES = 1024
_HALF = 512
_LAST = COORDINATE_BINS - 1


def code_coordinate(code: int) -> Coordinate:
    """The token of a code below 1,024, as 4M writes those of masks and poses: v0=<code>, or v1=<code - 512>."""
    return Coordinate(*divmod(code, _HALF))


def code_of(piece: int | Coordinate) -> int:
    """The code that a token says; -1 when it says none."""
    if not isinstance(piece, Coordinate) or piece.axis > 1 or piece.value >= _HALF:
        return -1
    return piece.axis * _HALF + piece.value


def mask_square(mask: Mask, box: Sequence[int]) -> np.ndarray:
    """The mask's part in its box (0..999), stretched to 64 x 64 pixels: 0 and 1, uint8."""
    import cv2

    rows, columns = _pixels(box, mask.height, mask.width)
    part = mask.to_array()[rows, columns].astype(np.float32)
    shrinks = part.shape[0] >= MASK_SIDE and part.shape[1] >= MASK_SIDE
    stretched = cv2.resize(part, (MASK_SIDE, MASK_SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return (stretched >= 0.5).astype(np.uint8)


def paint_mask(square: np.ndarray, box: Sequence[int], side: int) -> Mask:
    """The inverse: what a float32 (64, 64) has at 0.5 or above, stretched into the box of a frame of side x side."""
    import cv2

    frame = np.zeros((side, side), bool)
    rows, columns = _pixels(box, side, side)
    width, height = columns.stop - columns.start, rows.stop - rows.start
    frame[rows, columns] = cv2.resize(square, (width, height), interpolation=cv2.INTER_LINEAR) >= 0.5
    return Mask.from_array(frame)


def square_patches(squares: np.ndarray) -> np.ndarray:
    """float32 (16 n, 256): the patches of squares (n, 64, 64), row by row."""
    blocks = squares.reshape(-1, MASK_SIDE // PATCH_SIDE, PATCH_SIDE, MASK_SIDE // PATCH_SIDE, PATCH_SIDE)
    return blocks.transpose(0, 1, 3, 2, 4).reshape(-1, PATCH_SIDE**2).astype(np.float32)


def patch_squares(patches: np.ndarray) -> np.ndarray:
    """The inverse: float32 (n, 64, 64) of patches (16 n, 256)."""
    blocks = patches.reshape(-1, MASK_SIDE // PATCH_SIDE, MASK_SIDE // PATCH_SIDE, PATCH_SIDE, PATCH_SIDE)
    return np.ascontiguousarray(blocks.transpose(0, 1, 3, 2, 4)).reshape(-1, MASK_SIDE, MASK_SIDE)


def _pixels(box: Sequence[int], height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of a box (0..999): at least one of each."""
    left, top, right, bottom = (
        round(side / _LAST * length) for side, length in zip(box, (width, height) * 2, strict=True)
    )
    top, left = min(top, height - 1), min(left, width - 1)
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))
