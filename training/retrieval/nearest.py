"""The nearest of many vectors, exactly: by the cosine, part after part, whatever is in a part."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Part:
    """Some of the vectors. place: of the part among all. keys: of n vectors, float32 (n, dim); rows: where each stands
    in the part."""

    place: int
    keys: Sequence[str]
    rows: Sequence[int]
    vectors: np.ndarray


@dataclass(frozen=True)
class Hit:
    """score: the cosine. place, row: of the vector, as of Part."""

    score: float
    key: str
    place: int
    row: int

    @property
    def rank(self) -> tuple[float, str, int, int]:
        """The lowest comes first: by score, among equals by key."""
        return -self.score, self.key, self.place, self.row


def nearest(query: np.ndarray, parts: Iterable[Part], count: int) -> list[Hit]:
    """The `count` vectors whose cosine with `query`, (dim,), is largest, of all parts together. In memory are those of
    one part and the hits so far. Of vectors that are zero the cosine is 0."""
    found: list[Hit] = []
    for part in parts:
        found = heapq.nsmallest(count, [*found, *_best(query, part, count)], key=lambda hit: hit.rank)
    return found


def _best(query: np.ndarray, part: Part, count: int) -> list[Hit]:
    """At least the `count` best of a part, with all that are equal to the last of these."""
    scores = cosines(query, part.vectors)
    least = np.partition(scores, -count)[-count] if len(scores) > count else -np.inf
    chosen = np.flatnonzero(scores >= least).tolist()
    return [Hit(float(scores[one]), part.keys[one], part.place, part.rows[one]) for one in chosen]


def cosines(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """float32 (n,). They are reckoned in double precision and rounded, so that equal vectors score alike in whatever
    part they are."""
    directions, wide = query.astype(np.float64), vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1) * np.linalg.norm(directions)
    products = wide @ directions
    return np.divide(products, lengths, out=np.zeros(len(wide)), where=lengths > 0).astype(np.float32)
