"""The samples whose vectors are nearest to one: exact, over rows that come bit by bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...pipeline.corpus.units import Unit
from .vectors import Rows


@dataclass(frozen=True)
class Match:
    """A sample. view: its nearest one. distance: Euclidean."""

    key: str
    unit: Unit
    sample: int
    view: int
    distance: float


def distances(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """float64 (n,): Euclidean, of vectors (n, dim) from a query (dim,), by products of their differences: nothing is
    lost of small ones, as it is in |x|² - 2xq + |q|²."""
    apart = vectors.astype(np.float64) - query
    return np.sqrt(np.einsum("nd,nd->n", apart, apart))


class Nearest:
    """Keeps the `count` samples that are nearest to `query`, float32 (dim,); of equal ones those that came first. A
    sample is as near as its nearest view. Euclidean, as ml-4m's notebook of retrieval has it."""

    def __init__(self, query: np.ndarray, count: int) -> None:
        self._query, self._count = query, count
        self.matches: list[Match] = []

    def add(self, rows: Rows) -> None:
        far = distances(rows.vectors, self._query)
        order = np.lexsort((rows.view, far, rows.sample))
        _, first = np.unique(rows.sample[order], return_index=True)
        best = order[first]  # of each sample its nearest view, sample by sample
        for place in best[np.argsort(far[best], kind="stable")][: self._count].tolist():
            sample = int(rows.sample[place])
            self.matches.append(Match(rows.keys[sample], rows.unit, sample, int(rows.view[place]), float(far[place])))
        self.matches = sorted(self.matches, key=lambda one: one.distance)[: self._count]
