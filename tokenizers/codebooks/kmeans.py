"""k-means with the same bits on one thread or many.

Matrix products may round differently from one thread count, chunk or library to the next. So they only shortlist the
nearest centroids; what lies within their rounding error is decided in float64, in a fixed order. Those that look for
principal components are of whole numbers, which float64 adds up exactly. All other sums run in numpy, in a fixed order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

COMPONENTS = 32
"""Principal components in which long points are clustered: quicker by their length over this, and what is left out is
what centroids would learn by heart."""

_SCORES = 2**20  # numbers in one block of scores: 4 MiB, which caches hold
_SEED_ROUNDS = 64
_COLUMNS = 64
_PART = 16_384  # points that settle principal components, and centroids where they are few
_POWERS = 6
_BITS = 18  # of whole numbers: products of two, added up 2**17 times, are exact in float64


@dataclass(frozen=True)
class Clusters:
    """What `kmeans` found.

    centroids: float32 (k, dim). ids: int64 (n,), the nearest centroid of each point. objective: the sum of squared
    distances to the nearest centroid at each iteration; never rising. Of points that are many or long, centroids are
    the means of those that share an id, and ids and objective are as `kmeans` found them in a part of the points and
    of their components.
    """

    centroids: np.ndarray
    ids: np.ndarray
    objective: tuple[float, ...]


@threadpool_limits.wrap(limits=1, user_api="blas")  # the products are small: threads would mostly wait for each other
def kmeans(
    points: np.ndarray,
    k: int,
    seed: int,
    iterations: int = 10,
    spherical: bool = False,
    watch: Callable[[int, int], None] = lambda done, of: None,
) -> Clusters:
    """At most k clusters of `points`, float32 (n, dim), n >= 1; fewer when fewer of them are distinct.

    Lloyd's algorithm from a D^2-weighted seeding in rounds, as in Bahmani et al., "Scalable k-means++"
    (arXiv 1203.6402). Points of more than twice COMPONENTS numbers are told apart by their principal components; where
    there are more than two a cluster, and more than 16,384, a part of them goes through the iterations, and all make
    the means in the end. What is left out changes next to nothing on other points than these.

    spherical: points are of unit length, and centroids are made so; on the sphere squared distance is twice the cosine
    distance. watch: told each round before it begins, and how many there are at most. Deterministic in its arguments.
    Raises ValueError for no points.
    """
    if len(points) == 0:
        raise ValueError("k-means needs at least one point")
    points = np.ascontiguousarray(points, dtype=np.float32)
    generator = np.random.Generator(np.random.PCG64(seed))
    long = points.shape[1] > 2 * COMPONENTS
    seen = principal_components(points, generator) if long else points
    most = max(2 * k, _PART)
    part = seen[np.sort(generator.permutation(len(seen))[:most])] if len(seen) > most else seen
    found = lloyd(part, k, generator, iterations, spherical and not long, watch)
    if part is points:
        return found
    watch(iterations + 2, iterations + 3)
    ids = found.ids if part is seen else nearest(seen, found.centroids)
    _, first, ids = np.unique(ids, return_index=True, return_inverse=True)
    return Clusters(_means(points, ids, points[first], np.zeros(len(points)), spherical), ids, found.objective)


def principal_components(points: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """float32 (n, COMPONENTS): where the points lie along the directions in which they are longest.

    By subspace iteration (Halko et al., arXiv 0909.4061, algorithm 4.4) on a part of the points.
    """
    step = -(-len(points) // _PART)
    some = _whole(points[::step])
    directions = _whole(_orthonormal(generator.normal(size=(points.shape[1], COMPONENTS))), 1)
    for _ in range(_POWERS):
        directions = _whole(_orthonormal(some.T @ _whole(some @ directions)), 1)
    largest = float(max(points.max(), -points.min())) or 1.0
    blocks = (_whole(points[at : at + 4096], largest) @ directions for at in range(0, len(points), 4096))
    return np.concatenate([(block * (largest * 2.0 ** (-2 * _BITS))).astype(np.float32) for block in blocks])


def lloyd(
    points: np.ndarray,
    k: int,
    generator: np.random.Generator,
    iterations: int,
    spherical: bool,
    watch: Callable[[int, int], None] = lambda done, of: None,
) -> Clusters:
    """As `kmeans`, of the points as they are, in all of them."""
    rounds = iterations + 3  # the seeding first; the assignment of all points last
    watch(0, rounds)
    centroids = _seed(points, k, generator)
    ids, objective = np.full(len(points), -1), []
    for iteration in range(iterations + 1):
        watch(iteration + 1, rounds)
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
        best, places = scores.argmax(axis=1), np.arange(len(block))
        highest = scores[places, best]
        scores[places, best] = -np.inf
        threshold = highest - _rounding_error(block, float(norms.max()))
        unsure = np.flatnonzero(scores.max(axis=1) >= threshold)
        scores[places, best] = highest
        ids[start : start + rows] = best
        ids[start + unsure] = _decide(block[unsure], centroids, scores[unsure] >= threshold[unsure, None])
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


def _decide(points: np.ndarray, centroids: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Of the `close` centroids of each point, the nearest by float64. Equal points are decided once."""
    decided: dict[bytes, int] = {}
    for point, near in zip(points, close, strict=True):
        if (key := point.tobytes()) not in decided:
            candidates = np.flatnonzero(near)
            difference = centroids[candidates].astype(np.float64) - point
            decided[key] = int(candidates[np.square(difference).sum(axis=1).argmin()])
    return np.array([decided[point.tobytes()] for point in points], np.int64)


def _whole(numbers: np.ndarray, largest: float | None = None) -> np.ndarray:
    """The numbers as whole ones of _BITS bits, float64; `largest`, by default that of them, becomes 2**_BITS."""
    largest = largest or float(np.abs(numbers).max()) or 1.0
    return np.rint(numbers.astype(np.float64) * (2.0**_BITS / largest))


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of what the columns span, by Gram and Schmidt; zero for a column that adds nothing."""
    basis = np.zeros_like(columns)
    for index, column in enumerate(columns.T):
        before, length = basis[:, :index], np.sqrt(np.square(column).sum())
        for _ in range(2):  # the second time takes what rounding left
            column = column - (before * (before * column[:, None]).sum(axis=0)).sum(axis=1)
        rest = np.sqrt(np.square(column).sum())
        basis[:, index] = column / rest if rest > 1e-9 * length else 0
    return basis


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
