"""An image's few main colours, for every number of them from 1 to 7."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from .contract.kinds import Record
from .contract.labeler import Batch, Labeler, Modality

MOST = 7
"""The largest palette, as in 4M-21."""

_THUMBNAIL = 64
_CANDIDATES = 32
_ROUNDS = 20


class ColorPalette(Labeler):
    """The main colours of the view: k-means palettes of 1 to 7 colours.

    `color_palette`: {"1": [[r, g, b]], "2": [[r, g, b], [r, g, b]], ..., "7": ...}, integers 0..255, the colour of the
    largest share first. An image of fewer colours than k has a shorter list under k.
    """

    makes = (Modality("color_palette", Record(tuple(str(k) for k in range(1, MOST + 1))), tokenizer="palette"),)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        assert batch.images is not None
        return {"color_palette": [palettes(image) for image in batch.images]}


def palettes(image: np.ndarray) -> dict[str, list[list[int]]]:
    """The palettes of an image, uint8 (height, width, 3), from its thumbnail of 64 x 64 pixels.

    Each palette is k-means from the one before it and the colour that lowers its loss most, as in the fast global
    k-means of Likas, Vlassis and Verbeek (2003): no chance is in it. And all numbers are integers, held in float64
    where BLAS works on them exactly, so that every machine finds the same.
    """
    colours, counts = _colour_cells(image)
    centres = _means(colours, counts, np.zeros(len(colours), np.intp), np.zeros((1, 3)))
    found: dict[str, list[list[int]]] = {}
    for k in range(1, MOST + 1):
        if k > 1:
            centres = _settle(colours, counts, _with_one_more(colours, counts, centres))
        shares = np.bincount(_nearest(colours, centres), counts, len(centres))
        order = np.argsort(-shares, kind="stable")
        found[str(k)] = centres[order[shares[order] > 0]].astype(int).tolist()
    return found


def _colour_cells(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The thumbnail's colours, gathered in cubes of 8 x 8 x 8: their rounded means (cells, 3), and pixel counts."""
    thumbnail = Image.fromarray(image).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    pixels = np.asarray(thumbnail).reshape(-1, 3)
    _, cells = np.unique((pixels >> 3) @ np.array([1024, 32, 1]), return_inverse=True)
    counts = np.bincount(cells).astype(np.float64)
    sums = np.stack([np.bincount(cells, channel) for channel in pixels.T], axis=1)
    return _round_quotient(sums, counts[:, None]), counts


def _with_one_more(colours: np.ndarray, counts: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The centres and, of the colours that they serve worst, the one that lowers the loss most; none at no loss."""
    distances = _squared_distances(colours, centres).min(axis=1)
    loss = counts * distances
    if not loss.any():
        return centres
    candidates = colours[np.argsort(-loss, kind="stable")[:_CANDIDATES]]
    gains = counts @ (distances[:, None] - _squared_distances(colours, candidates)).clip(min=0)
    return np.vstack([centres, candidates[gains.argmax()]])


def _settle(colours: np.ndarray, counts: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Lloyd's rounds until no centre moves by more than 1 in any channel."""
    for _ in range(_ROUNDS):
        before, centres = centres, _means(colours, counts, _nearest(colours, centres), centres)
        if np.abs(centres - before).max() <= 1:
            break
    return centres


def _means(colours: np.ndarray, counts: np.ndarray, nearest: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The rounded mean of the colours nearest to each centre; a centre that no colour is nearest to stays."""
    weights = (nearest == np.arange(len(centres))[:, None]) * counts
    sizes = weights.sum(axis=1, keepdims=True)
    return np.where(sizes > 0, _round_quotient(weights @ colours, np.maximum(sizes, 1)), centres)


def _round_quotient(sums: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """sums / sizes to the nearest integer, halves up."""
    return (2 * sums + sizes) // (2 * sizes)


def _nearest(colours: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The index of each colour's nearest centre."""
    return ((centres * centres).sum(axis=1)[:, None] - 2 * (centres @ colours.T)).argmin(axis=0)


def _squared_distances(colours: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(colours, centres)."""
    squares = (colours * colours).sum(axis=1)[:, None] + (centres * centres).sum(axis=1)
    return squares - 2 * (colours @ centres.T)
