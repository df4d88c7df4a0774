"""Budgets: how many tokens of each modality a sample gives as input, and as target."""

from __future__ import annotations

import numpy as np

from .draws import below, log_gammas, stream

_LEAST = 1e-9
"""What an alpha of 0 counts as: such a modality gets tokens where a sample has no other."""


def share_out(
    keys: np.ndarray, alphas: np.ndarray, allowed: np.ndarray, totals: np.ndarray, most: np.ndarray
) -> np.ndarray:
    """int64 (n, modalities): `totals` tokens of each sample, shared out among its modalities.

    The shares are drawn from the Dirichlet distribution and rounded down; each token that is left goes to the largest
    share of another such draw. What is more than a modality has is lost (ml-4m, masking.py).

    keys: uint64 (n,). alphas: float64, NaN for what never gets any, allowed: bool, most: int (each (n, modalities)).
    totals: int (n,).
    """
    allowed = allowed & ~np.isnan(alphas)
    wanted = allowed & (alphas > 0)
    fallback = allowed & ~wanted.any(axis=1, keepdims=True)
    possible = np.where(wanted, alphas, np.where(fallback, _LEAST, np.nan))
    shares = _shares(stream(keys, 0), possible)
    counts = np.floor(shares * totals[:, None]).astype(np.int64)
    left = np.where(allowed.any(axis=1), totals - counts.sum(axis=1), 0)
    rows = np.repeat(np.arange(len(keys)), left)
    number = np.arange(len(rows)) - np.repeat(np.cumsum(left) - left, left)
    np.add.at(counts, (rows, _largest(stream(keys[rows], number + 1), possible[rows])), 1)
    return np.minimum(counts, most)


def _largest(keys: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """int64 (n,): whose share is the largest of a draw from the Dirichlet distribution; of equal alphas any, equally
    likely, which spares the draw. alphas: float64 (n, m), NaN where there is none."""
    there = ~np.isnan(alphas)
    which = np.cumsum(there, axis=1) == 1 + below(stream(keys, 1), there.sum(axis=1))[:, None]
    largest = (which & there).argmax(axis=1)
    top = np.where(there, alphas, 0).max(axis=1, keepdims=True)
    uneven = np.flatnonzero((there & (alphas != top)).any(axis=1))
    largest[uneven] = log_gammas(keys[uneven], alphas[uneven]).argmax(axis=1)
    return largest


def _shares(keys: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """float64 (n, m): a draw from the Dirichlet distribution for each row; 0 where alpha is NaN."""
    logs = log_gammas(keys, alphas)
    top = logs.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(logs - np.where(np.isfinite(top), top, 0))
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
