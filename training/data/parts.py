"""Parts of texts: which tokens of a serialised label belong together, and their order drawn anew.

Told by the tokens themselves: coordinates v2= stand in boxes alone, and in records each pair begins with v1=.
"""

from __future__ import annotations

import numpy as np

from ...tokenizers.contract.special_tokens import COORDINATE_BINS, FIRST_COORDINATE
from .draws import uniforms


def pair_chunks(ids: np.ndarray) -> np.ndarray:
    """int64 (n, longest): the number of the pair `v1=field v0=value` that each token of a record (n, longest) is in.

    What is no coordinate, as [EOS] is, is a chunk of its own.
    """
    begins = (_axis(ids) == 1) | (_axis(ids) < 0)
    begins[:, :1] = True
    return np.cumsum(begins, axis=1) - 1


def instance_starts(ids: np.ndarray, before_box: int) -> np.ndarray:
    """bool (n, longest): where an instance begins in texts (n, longest), as detections and poses have them.

    before_box: tokens of an instance before its box.
    """
    starts = np.zeros(ids.shape, bool)
    at = before_box + 2
    starts[:, : max(0, ids.shape[1] - at)] = _axis(ids[:, at:]) == 2
    return starts


def shuffled(keys: np.ndarray, ids: np.ndarray, lengths: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The texts, int (n, longest), with their parts in an order drawn for each; what lies before the first stays there,
    and what lies behind the text, too. lengths: int (n,). starts: bool (n, longest), where parts begin."""
    part = np.cumsum(starts, axis=1)
    there = np.arange(ids.shape[1]) < lengths[:, None]
    drawn = np.take_along_axis(uniforms(keys, int(part.max(initial=0)) + 1), part, axis=1)
    order = np.where(there, np.where(part > 0, drawn, -1.0), 2.0)
    return np.take_along_axis(ids, np.argsort(order, axis=1, kind="stable"), axis=1)


def _axis(ids: np.ndarray) -> np.ndarray:
    """0 to 3 for the coordinates v0= to v3=, -1 or another number for the rest."""
    axis = (ids - FIRST_COORDINATE) // COORDINATE_BINS
    return np.where((axis >= 0) & (axis <= 3), axis, -1)
