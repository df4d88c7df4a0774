"""Spans: texts with parts masked out, as T5 (Raffel et al. 2020, arXiv 1910.10683) and 4M mask them.

Each run of masked tokens is one sentinel in the input, and in the target the sentinel followed by the run's tokens. The
target ends with one sentinel more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...tokenizers.contract.special_tokens import SENTINELS
from .draws import below, chances, stream

_SHRINK = 0.9
"""By how much less is kept at each further try, while the input is longer than its budget (ml-4m, masking.py)."""

_TRIES = 8
"""So many are made at once after the first, which often fits."""

_MOST_RUNS = SENTINELS - 2
"""Runs that can be told apart: the first is [S_1], and one sentinel more ends the target."""

_CHOICE = 1 << 32
"""The stream that says where a target begins; those below are tries."""


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """int64 (sum of counts,): start, start + 1, ... of each, int (n,), as many as its count says."""
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: values (sum of counts,), row after row; counts: int64 (rows,)."""

    values: np.ndarray
    counts: np.ndarray


def keep_tokens(
    keys: np.ndarray,
    chunks: np.ndarray | None,
    lengths: np.ndarray,
    longest: int,
    share: np.ndarray,
    budget: np.ndarray,
) -> np.ndarray:
    """bool (n, longest): which tokens stay, so that the input, with its sentinels, is no longer than `budget`, and
    there are sentinels for all runs.

    Tokens of one chunk stay together. Each chunk stays with the probability `share`, which shrinks until the input
    fits. Nothing stays where the budget is 0.

    chunks: int64 (n, longest), the number of each token's chunk, from 0; None where each is one. share: float64 (n,).
    budget: int (n,).
    """
    kept = np.zeros((len(keys), longest), bool)
    draws = longest if chunks is None else int(chunks.max(initial=-1)) + 1
    there = np.arange(longest) < lengths[:, None]
    left, attempt = np.flatnonzero(budget > 0), 0
    while left.size:
        numbers = np.arange(attempt, attempt + (_TRIES if attempt else 1))
        stays = chances(stream(keys[left, None], numbers), draws, share[left, None] * _SHRINK**numbers)
        if chunks is not None:
            stays = np.take_along_axis(stays, np.broadcast_to(chunks[left, None], (*stays.shape[:2], longest)), axis=2)
        shown, runs = _shown(stays, there[left, None])
        fitting = (shown <= budget[left, None]) & (runs <= _MOST_RUNS)
        fits, first = fitting.any(axis=1), fitting.argmax(axis=1)
        kept[left[fits]] = stays[fits, first[fits]]
        left, attempt = left[~fits], attempt + len(numbers)
    return kept & there


def _shown(stays: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray | int]:
    """int64 (n, tries): how many tokens an input has: those that stay, and a sentinel for each run of the others; and
    how many runs, where they might be more than there are sentinels for, else 0.

    Counted in words of 64 tokens. stays: bool (n, tries, longest); there: bool (n, 1, longest).
    """
    present = _words(there)
    masked = present & ~_words(stays)
    before = masked << np.uint64(1)
    before[..., 1:] |= masked[..., :-1] >> np.uint64(63)
    shown = np.bitwise_count(present & ~(masked & before)).sum(axis=-1, dtype=np.int64)
    if stays.shape[-1] <= 2 * _MOST_RUNS:
        return shown, 0
    return shown, np.bitwise_count(masked & ~before).sum(axis=-1, dtype=np.int64)


def _words(flags: np.ndarray) -> np.ndarray:
    """uint64 (..., words): flags, bool (..., n), as bits from the lowest on, 0 behind the last."""
    packed = np.packbits(flags, axis=-1, bitorder="little")
    words = np.zeros((*packed.shape[:-1], -(-packed.shape[-1] // 8) * 8), np.uint8)
    words[..., : packed.shape[-1]] = packed
    return words.view("<u8")


def span_input(ids: np.ndarray, lengths: np.ndarray, kept: np.ndarray, sentinel: int, budget: np.ndarray) -> Ragged:
    """The tokens that stay, and a sentinel for each run of those that don't; nothing where the budget is 0.

    ids: int (n, longest). sentinel: the id before that of the first sentinel that is used.
    """
    there = np.arange(ids.shape[1]) < lengths[:, None]
    begins = _beginnings(there & ~kept)
    shown = (kept | begins) & (budget > 0)[:, None]
    values = np.where(begins, sentinel + np.cumsum(begins, axis=1), ids)
    return Ragged(values[shown], shown.sum(axis=1))


def span_target(
    keys: np.ndarray, ids: np.ndarray, lengths: np.ndarray, kept: np.ndarray, sentinel: int, budget: np.ndarray
) -> Ragged:
    """The runs of tokens that don't stay, each behind its sentinel, cut to `budget`; arguments as of `span_input`.

    A target that is too long begins at any of its sentinels but the last, all equally likely, or, where fewer than
    `budget` tokens are left from there, at the first from which all that follows fits.
    """
    masked = (np.arange(ids.shape[1]) < lengths[:, None]) & ~kept
    opens = _beginnings(masked)
    runs = np.count_nonzero(opens, axis=1)
    total = np.count_nonzero(masked, axis=1) + runs + 1
    first = np.cumsum(total) - total  # where each row's target begins, all of them being written one behind the other
    row, column = masked.nonzero()
    opened = opens[row, column]
    number = np.cumsum(opened)  # of sentinels before, in all rows
    places = np.arange(len(row)) + number + row  # each row before has one sentinel more, at its end
    written = np.empty(int(total.sum()), np.int64)
    written[places] = ids[row, column]
    starts, own = places[opened] - 1, row[opened]
    before = np.cumsum(runs) - runs
    written[starts] = sentinel + number[opened] - before[own]
    written[first + total - 1] = sentinel + 1 + runs
    begin = _start(keys, starts - first[own], runs, before, total, budget)
    counts = np.minimum(budget, total - begin)
    return Ragged(written[ranges(first + begin, counts)], counts)


def _start(
    keys: np.ndarray, sentinels: np.ndarray, runs: np.ndarray, before: np.ndarray, total: np.ndarray, budget: np.ndarray
) -> np.ndarray:
    """Where each row's part begins. sentinels: places of all but the last in their targets, row after row; before: how
    many of them the rows before have."""
    last = total - 1
    padded = np.append(sentinels, 0)
    drawn = np.where(runs > 0, padded[before + below(stream(keys, _CHOICE), np.maximum(runs, 1))], last)
    row = np.repeat(np.arange(len(runs)), runs)
    fits = sentinels >= (total - budget)[row]
    fitting = last.copy()
    np.minimum.at(fitting, row[fits], sentinels[fits])
    return np.where(total <= budget, 0, np.where(total - drawn < budget, fitting, drawn))


def _beginnings(masked: np.ndarray) -> np.ndarray:
    begins = masked.copy()
    begins[..., 1:] &= ~masked[..., :-1]
    return begins
