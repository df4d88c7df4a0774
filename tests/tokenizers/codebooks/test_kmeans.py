"""k-means: nearest means nearest, the objective never rises, and the bits don't depend on threads or neighbours."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tokenloom.tokenizers.codebooks.kmeans import (
    COMPONENTS,
    kmeans,
    nearest,
    normalise,
    principal_components,
    sample_rows,
    squared_distances,
)

tame = st.floats(-100, 100, width=32)
point_sets = st.integers(1, 5).flatmap(
    lambda dim: arrays(np.float32, st.tuples(st.integers(1, 40), st.just(dim)), elements=tame)
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@settings(max_examples=200, deadline=None)
@given(point_sets, st.integers(1, 12), st.integers(0, 3), st.booleans())
def test_lloyd(points, k, seed, spherical):
    if spherical:
        points = normalise(points[points.any(axis=1)])
        assume(len(points))
    clusters = kmeans(points, k, seed, iterations=6, spherical=spherical)
    exact = np.square(points[:, None].astype(np.float64) - clusters.centroids[None]).sum(axis=2)
    np.testing.assert_array_equal(clusters.ids, exact.argmin(axis=1))
    assert len(clusters.centroids) <= min(k, len(np.unique(points, axis=0)))
    slack = 1e-5 * (1 + np.square(points, dtype=np.float64).sum())
    assert (np.diff(clusters.objective) <= slack).all()
    assert clusters.objective[-1] == pytest.approx(exact.min(axis=1).sum(), rel=1e-9, abs=1e-9)
    if spherical:
        lengths = np.linalg.norm(clusters.centroids, axis=1)
        assert (abs(lengths - 1) < 1e-5).all()


def test_separate_clusters_are_found():
    centres = rng(1).normal(size=(40, 8)).astype(np.float32) * 100
    labels = np.arange(2000) % 40
    points = centres[labels] + rng(2).normal(size=(2000, 8)).astype(np.float32)
    clusters = kmeans(points, 40, seed=0, iterations=20)
    assert clusters.objective[-1] < 2 * 2000 * 8
    assert all(len(set(clusters.ids[labels == label])) == 1 for label in range(40))


def test_as_many_clusters_as_distinct_points():
    points = np.repeat(np.eye(5, dtype=np.float32), 9, axis=0)
    clusters = kmeans(points, 64, seed=3)
    assert len(clusters.centroids) == 5
    assert clusters.objective[-1] == 0


def test_no_points():
    with pytest.raises(ValueError, match="at least one point"):
        kmeans(np.zeros((0, 3), np.float32), 2, seed=0)


def waves(count: int, seed: int, dim: int = 200) -> np.ndarray:
    """Points near a plane of few dimensions, with noise in all of them, float32 (count, dim)."""
    plane = rng(99).normal(size=(12, dim))
    points = np.sin(rng(seed).normal(size=(count, 12)) * 2) @ plane + rng(seed + 1).normal(size=(count, dim)) / 2
    return points.astype(np.float32)


def test_principal_components_keep_what_can_be_kept():
    points = (rng().normal(size=(3000, 300)) * 0.97 ** np.arange(300)).astype(np.float32)
    seen = principal_components(points, rng())
    values = np.linalg.svd(points, compute_uv=False)
    assert seen.shape == (3000, COMPONENTS)
    assert np.square(seen, dtype=np.float64).sum() > 0.985 * np.square(values[:COMPONENTS]).sum()
    lengths, distances = (np.linalg.norm(one - one[::-1], axis=1) for one in (points, seen))
    assert (distances <= lengths * (1 + 1e-3)).all()
    few = np.repeat(points[:3], 9, axis=0)
    assert np.linalg.norm(principal_components(few, rng()), axis=1) == pytest.approx(np.linalg.norm(few, axis=1), 1e-3)


def lloyd(points: np.ndarray, k: int) -> np.ndarray:
    """Centroids of Lloyd's algorithm by its definition."""
    centroids = points[rng(5).permutation(len(points))[:k]]
    for _ in range(10):
        ids = nearest(points, centroids)
        known = np.unique(ids)
        centroids[known] = [points[ids == id].mean(axis=0) for id in known]
    return centroids


@pytest.mark.slow
@pytest.mark.parametrize("count", [4000, 20_000])
def test_long_points_are_clustered_as_well_for_others(count):
    """By the error of points that were not fitted to; beside Lloyd's algorithm on whole points, all of them."""
    points, others = waves(count, 7), waves(2000, 11)
    told: list[tuple[int, int]] = []
    found = kmeans(points, 200, 0, 3, watch=lambda done, of: told.append((done, of)))
    ours, theirs = (
        squared_distances(others, centroids, nearest(others, centroids)).mean()
        for centroids in (found.centroids, lloyd(points, 200))
    )
    assert ours < theirs * 1.01
    means = [points[found.ids == id].mean(axis=0, dtype=np.float64) for id in range(len(found.centroids))]
    np.testing.assert_allclose(found.centroids, means, atol=1e-4)
    assert (np.diff(found.objective) <= 0).all()
    assert told == [(done, 6) for done in range(6)]


@settings(max_examples=100, deadline=None)
@given(point_sets, st.integers(0, 2**32))
def test_nearest_does_not_depend_on_neighbours(points, seed):
    centroids = rng(seed).permutation(np.concatenate([points, points + np.float32(1e-5), points[:1]]))
    together = nearest(points, centroids)
    alone = [nearest(points[[row]], centroids)[0] for row in range(len(points))]
    np.testing.assert_array_equal(together, alone)


def test_near_ties_are_decided_exactly():
    base = normalise(rng().normal(size=(1, 384)))
    centroids = normalise(base + 1e-6 * rng(1).normal(size=(500, 384)).astype(np.float32))
    points = normalise(base + 1e-6 * rng(2).normal(size=(100, 384)).astype(np.float32))
    exact = [np.square(point.astype(np.float64) - centroids).sum(axis=1).argmin() for point in points]
    np.testing.assert_array_equal(nearest(points, centroids), exact)


def test_equally_near_takes_the_lowest():
    assert nearest(np.zeros((3, 2), np.float32), np.array([[1, 0], [0, 1], [-1, 0]], np.float32)).tolist() == [0, 0, 0]


FIT = """
import hashlib, numpy as np
from tokenloom.tokenizers.codebooks.kmeans import kmeans, normalise
points = normalise(np.random.Generator(np.random.PCG64(5)).normal(size=(17000, 96)))
clusters = kmeans(points, 300, seed=1, iterations=4, spherical=True)
found = clusters.centroids.tobytes() + clusters.ids.tobytes() + repr(clusters.objective).encode()
print(hashlib.sha256(found).hexdigest())
"""


@pytest.mark.slow
def test_same_bits_on_any_number_of_threads():
    digests = set()
    for threads in ("1", "2", "4"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", FIT], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1
    assert len(digests.pop().strip()) == hashlib.sha256().digest_size * 2


def test_sample_keeps_all_rows_when_they_fit():
    blocks = [rng(block).normal(size=(7, 3)).astype(np.float32) for block in range(4)]
    np.testing.assert_array_equal(sample_rows(blocks, 100, seed=0), np.concatenate(blocks))
    assert sample_rows([], 10, seed=0).shape == (0, 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.integers(1, 50), st.integers(0, 5))
def test_sample_is_ordered_unique_and_independent_of_blocks(lengths, size, seed):
    rows = np.arange(sum(lengths), dtype=np.float32)[:, None]
    blocks = np.split(rows, np.cumsum(lengths)[:-1])
    drawn = sample_rows(blocks, size, seed)[:, 0]
    assert len(drawn) == min(size, len(rows))
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(drawn, sample_rows([rows], size, seed)[:, 0])


def test_sample_is_fair():
    hits = np.zeros(100)
    for seed in range(400):
        hits[sample_rows(np.arange(100, dtype=np.float32).reshape(10, 10, 1), 20, seed)[:, 0].astype(int)] += 1
    assert abs(hits - 80).max() < 5 * np.sqrt(400 * 0.2 * 0.8)


def test_squared_distances():
    points, centroids = rng().normal(size=(5000, 3)), rng(1).normal(size=(4, 3))
    ids = np.arange(5000) % 4
    expected = ((points - centroids[ids]) ** 2).sum(axis=1)
    np.testing.assert_allclose(squared_distances(points, centroids, ids), expected, rtol=1e-9)
