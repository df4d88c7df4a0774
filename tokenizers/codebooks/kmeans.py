"""k-means with the same bits on one thread or many.

Matrix products may round differently from one thread count, chunk or library to the next. So they only shortlist the
nearest centroids; what lies within their rounding error is decided in float64, in a fixed order. All other sums run in
numpy, in a fixed order.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_SCORES = 2**23  # numbers in one block of scores: 32 MiB
_SEED_ROUNDS = 64
_COLUMNS = 64


@dataclass(frozen=True)
class Clusters:
    """What `kmeans` found.

    centroids: float32 (k, dim). ids: int64 (n,), the nearest centroid of each point. objective: the sum of squared
    distances to the nearest centroid at each iteration; never rising.
    """

    centroids: np.ndarray
    ids: np.ndarray
    objective: tuple[float, ...]


def kmeans(points: np.ndarray, k: int, seed: int, iterations: int = 10, spherical: bool = False) -> Clusters:
    """At most k clusters of `points`, float32 (n, dim), n >= 1; fewer when fewer of them are distinct.

    Lloyd's algorithm from a D^2-weighted seeding in rounds, as in Bahmani et al., "Scalable k-means++"
    (arXiv 1203.6402). spherical: points are of unit length, and centroids are kept so; on the sphere squared
    distance is twice the cosine distance. Deterministic in its arguments. Raises ValueError for no points.
    """
    if len(points) == 0:
        raise ValueError("k-means needs at least one point")
    points = np.ascontiguousarray(points, dtype=np.float32)
    centroids = _seed(points, k, np.random.Generator(np.random.PCG64(seed)))
    ids, objective = np.full(len(points), -1), []
    for iteration in range(iterations + 1):
        previous, ids = ids, nearest(points, centroids)
        distances = squared_distances(points, centroids, ids)
        objective.append(float(distances.sum()))
        if iteration == iterations or np.array_equal(ids, previous):
            break
        centroids = _means(points, ids, centroids, distances, spherical)
    return Clusters(centroids, ids, tuple(objective))


def nearest(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The id of the centroid nearest to each point, int64 (n,); of equally near ones the lowest.

    points: float32 (n, dim). centroids: float32 (k, dim). A point's result doesn't depend on the other points.
    """
    norms = np.sqrt(np.square(centroids, dtype=np.float64).sum(axis=1))
    half_squares = (norms**2 / 2).astype(np.float32)
    ids = np.empty(len(points), dtype=np.int64)
    rows = max(1, _SCORES // len(centroids))
    for start in range(0, len(points), rows):
        block = points[start : start + rows]
        scores = block @ centroids.T
        scores -= half_squares
        threshold = scores.max(axis=1) - _rounding_error(block, float(norms.max()))
        close = scores >= threshold[:, None]
        ids[start : start + rows] = close.argmax(axis=1)
        unsure = np.flatnonzero(np.count_nonzero(close, axis=1) > 1)
        ids[start + unsure] = _decide(block, centroids, close, unsure)
    return ids


def squared_distances(points: np.ndarray, centroids: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """float64 (n,): squared distance from each point to the centroid that `ids` names."""
    distances = np.empty(len(points))
    for start in range(0, len(points), 4096):
        part = slice(start, start + 4096)
        difference = points[part].astype(np.float64) - centroids[ids[part]]
        distances[part] = np.square(difference).sum(axis=1)
    return distances


def normalise(points: np.ndarray) -> np.ndarray:
    """The points at unit length, float32; zero stays zero."""
    norms = np.sqrt(np.square(points, dtype=np.float64).sum(axis=1, keepdims=True))
    return (points / np.where(norms > 0, norms, 1)).astype(np.float32)


def sample_rows(blocks: Iterable[np.ndarray], size: int, seed: int) -> np.ndarray:
    """At most `size` rows of all blocks, each row as likely as any other, in their order: float32 (rows, dim).

    Deterministic in the rows and the seed; holds `size` rows while it reads. Empty (0, 0) for no blocks.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    rows, places = np.empty((0, 0), np.float32), np.empty(size, np.int64)
    heap: list[tuple[float, int]] = []  # (-priority, slot): the row that goes next is on top
    read = 0
    for block in blocks:
        if not rows.size:
            rows = np.empty((size, block.shape[1]), np.float32)
        priorities = generator.random(len(block))
        for row in np.flatnonzero(priorities < (-heap[0][0] if len(heap) == size else np.inf)):
            entry = -float(priorities[row])
            if len(heap) < size:
                slot = len(heap)
                heapq.heappush(heap, (entry, slot))
            elif entry > heap[0][0]:
                slot = heap[0][1]
                heapq.heapreplace(heap, (entry, slot))
            else:
                continue
            rows[slot], places[slot] = block[row], read + row
        read += len(block)
    return rows[np.argsort(places[: len(heap)], kind="stable")]


def _rounding_error(block: np.ndarray, longest: float) -> np.ndarray:
    """Twice the largest rounding error of a score x.c - |c|^2 / 2 in float32 (Higham 2002, section 3.1)."""
    unit = 2.0**-24
    norms = np.sqrt(np.square(block, dtype=np.float64).sum(axis=1))
    return (2 * unit * ((block.shape[1] + 2) * norms * longest + 2 * longest**2)).astype(np.float32)


def _decide(block: np.ndarray, centroids: np.ndarray, close: np.ndarray, unsure: np.ndarray) -> np.ndarray:
    """Of the `close` centroids of each `unsure` row, the nearest by float64. Equal rows are decided once."""
    decided: dict[bytes, int] = {}
    ids = np.empty(len(unsure), dtype=np.int64)
    for place, row in enumerate(unsure):
        key = block[row].tobytes()
        if key not in decided:
            candidates = np.flatnonzero(close[row])
            difference = centroids[candidates].astype(np.float64) - block[row]
            decided[key] = int(candidates[np.square(difference).sum(axis=1).argmin()])
        ids[place] = decided[key]
    return ids


def _seed(points: np.ndarray, k: int, generator: np.random.Generator) -> np.ndarray:
    """At most k distinct points, each drawn with a probability that grows with its distance from those before it."""
    centroids = points[[int(generator.integers(len(points)))]]
    distances = squared_distances(points, centroids, np.zeros(len(points), dtype=np.int64))
    per_round = -(-k // _SEED_ROUNDS)
    while len(centroids) < k and distances.any():
        with np.errstate(divide="ignore"):
            keys = generator.exponential(size=len(points)) / distances
        drawn = np.argsort(keys, kind="stable")[: min(per_round, k - len(centroids))]
        drawn = drawn[distances[drawn] > 0]
        fresh = np.array(list({points[row].tobytes(): points[row] for row in drawn}.values()))
        centroids = np.concatenate([centroids, fresh])
        distances = np.minimum(distances, squared_distances(points, fresh, nearest(points, fresh)))
    return centroids


def _means(
    points: np.ndarray, ids: np.ndarray, centroids: np.ndarray, distances: np.ndarray, spherical: bool
) -> np.ndarray:
    """The mean of each cluster, on the sphere if `spherical`. Empty clusters move to the points that fit worst."""
    order = np.argsort(ids, kind="stable")
    present, starts, counts = np.unique(ids[order], return_index=True, return_counts=True)
    means = np.empty((len(present), points.shape[1]))
    for start in range(0, points.shape[1], _COLUMNS):
        columns = slice(start, start + _COLUMNS)
        means[:, columns] = np.add.reduceat(points[order, columns].astype(np.float64), starts) / counts[:, None]
    if spherical:
        lengths = np.sqrt(np.square(means).sum(axis=1))
        defined = lengths > 1e-6
        means[defined] /= lengths[defined, None]
        means[~defined] = centroids[present[~defined]]
    updated = centroids.copy()
    updated[present] = means
    empty = np.setdiff1d(np.arange(len(centroids)), present)
    worst = np.argsort(-distances, kind="stable")[: len(empty)]
    worst = worst[distances[worst] > 0]
    updated[empty[: len(worst)]] = points[worst]
    return updated
