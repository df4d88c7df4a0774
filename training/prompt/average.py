"""Several draws as one: what they decode to, averaged (4M-21, Bachmann et al. 2024, appendix C.2).

The paper ensembles ten draws, of normals and of semantic segmentation, and doesn't say how. Here it is place by place:
the mean; of normals the direction of their mean; of classes the one that most draws say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...labelers.contract.kinds import FeatureMap, Image, Kind, Vector

DRAWS = 10
"""Of the paper's ensembles."""


def can_be_averaged(kind: Kind) -> bool:
    """Texts, records and things in an image can't."""
    return isinstance(kind, Image | FeatureMap | Vector)


def average(kind: Kind, labels: Sequence[Any]) -> np.ndarray:
    """One label of several of a kind that can be averaged, all of one shape."""
    stacked = np.stack(labels)
    if isinstance(kind, Image) and kind.content == "classes":
        return _commonest(stacked)
    if isinstance(kind, Image) and kind.content == "normals":
        return _direction(stacked)
    return _as(stacked.mean(axis=0, dtype=np.float64), stacked.dtype)


def _as(mean: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return (np.rint(mean) if np.issubdtype(dtype, np.integer) else mean).astype(dtype)


def _commonest(labels: np.ndarray) -> np.ndarray:
    """The lowest of those that are as common. labels: (n, ...), of ids."""
    best, count = labels[0].copy(), np.zeros(labels.shape[1:], np.int64)
    for one in np.unique(labels):
        votes = (labels == one).sum(axis=0)
        best[votes > count] = one
        count = np.maximum(votes, count)
    return best


def _direction(labels: np.ndarray) -> np.ndarray:
    """labels: (n, height, width, 3), of unit vectors; integers stand for (x + 1) / 2. Where they cancel out, nought."""
    integers = np.issubdtype(labels.dtype, np.integer)
    most = np.iinfo(labels.dtype).max if integers else 1
    vectors = labels.astype(np.float64)
    mean = (2 * vectors / most - 1 if integers else vectors).mean(axis=0)
    unit = mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-9)
    return _as((unit + 1) / 2 * most if integers else unit, labels.dtype)
