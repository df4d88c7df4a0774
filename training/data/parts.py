"""Parts of texts: which tokens of a serialised label belong together, and their order drawn anew.

Told by the tokens themselves: coordinates v2= stand in boxes alone, and in records each pair begins with v1=.
"""

from __future__ import annotations

import numpy as np

from ...tokenizers.contract.special_tokens import COORDINATE_BINS, FIRST_COORDINATE
from .draws import bits


def pair_chunks(ids: np.ndarray) -> np.ndarray:
    """int64 (n, longest): the number of the pair `v1=field v0=value` that each token of a record (n, longest) is in.

    What is no coordinate, as [EOS] is, is a chunk of its own.
    """
    begins = (ids < FIRST_COORDINATE) | _on_axis(ids, 1) | (ids >= FIRST_COORDINATE + 4 * COORDINATE_BINS)
    begins[:, :1] = True
    return np.cumsum(begins, axis=1) - 1


def instance_starts(ids: np.ndarray, before_box: int) -> np.ndarray:
    """bool (n, longest): where an instance begins in texts (n, longest), as detections and poses have them.

    before_box: tokens of an instance before its box.
    """
    starts = np.zeros(ids.shape, bool)
    at = before_box + 2
    starts[:, : max(0, ids.shape[1] - at)] = _on_axis(ids[:, at:], 2)
    return starts


def shuffled(keys: np.ndarray, ids: np.ndarray, lengths: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The texts, int (n, longest), with their parts in an order drawn for each; what lies before the first stays there,
    and what lies behind the text, too. lengths: int (n,). starts: bool (n, longest), where parts begin."""
    part = np.cumsum(starts, axis=1)
    drawn = bits(keys, int(part.max(initial=0)) + 1) >> np.uint64(18)
    drawn[:, 0] = 0  # before the first part
    order = np.where(np.arange(ids.shape[1]) < lengths[:, None], np.take_along_axis(drawn, part, axis=1), 1 << 46)
    order = np.sort(order << np.uint64(16) | np.arange(ids.shape[1], dtype=np.uint64), axis=1)
    return np.take_along_axis(ids, (order & np.uint64(0xFFFF)).astype(np.int64), axis=1)


def _on_axis(ids: np.ndarray, axis: int) -> np.ndarray:
    """bool: which are coordinates v0= to v3= of that axis."""
    first = FIRST_COORDINATE + axis * COORDINATE_BINS
    return (ids >= first) & (ids < first + COORDINATE_BINS)
