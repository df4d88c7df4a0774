"""Draws: that they are those of the distributions they name, and functions of their key alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenloom.training.data.draws import (
    below,
    bits,
    chances,
    keys_of,
    log_gammas,
    permuted,
    shuffles,
    stream,
    uniforms,
)

MANY = 40_000


def test_the_numbers_are_splitmix64s():
    """Those that the authors' C code gives for the seed 1234567 (as in Rosetta Code's task)."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    np.testing.assert_array_equal(bits(np.array([1234567], np.uint64), 4)[0], np.array(expected, np.uint64))


@given(st.integers(0, 2**63), st.lists(st.integers(0, 2**62), min_size=1, max_size=5), st.integers(0, 9))
def test_a_samples_numbers_do_not_depend_on_its_neighbours(seed: int, positions: list[int], number: int):
    together = uniforms(stream(keys_of(seed, np.array(positions)), number), 3)
    alone = [uniforms(stream(keys_of(seed, np.array([position])), number), 3)[0] for position in positions]
    np.testing.assert_array_equal(together, alone)
    assert ((together > 0) & (together < 1)).all()


def test_positions_seeds_and_streams_differ():
    keys = np.concatenate([keys_of(seed, np.arange(1000)) for seed in range(10)])
    assert len(np.unique(np.concatenate([stream(keys, number) for number in range(10)]))) == 100_000


def test_uniform_numbers_are_uniform():
    drawn = uniforms(stream(keys_of(0, np.arange(MANY)), 7), 1)[:, 0]
    counts = np.bincount((drawn * 20).astype(int), minlength=20)
    assert ((counts - MANY / 20) ** 2 / (MANY / 20)).sum() < 50  # chi-square of 19 degrees: 1 in 10,000
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.02


def test_below_stays_below_and_reaches_all():
    drawn = below(keys_of(1, np.arange(3000)), np.full(3000, 7))
    assert set(drawn.tolist()) == set(range(7))


@pytest.mark.parametrize("shape", [0.05, 0.5, 1.0, 10.0, 1000.0])
def test_gammas_have_the_moments_of_their_distribution(shape: float):
    logs = log_gammas(keys_of(2, np.arange(MANY)), np.full((MANY, 1), shape))[:, 0]
    drawn = np.exp(logs)
    assert drawn.mean() == pytest.approx(shape, abs=5 * np.sqrt(shape / MANY))
    assert drawn.var() == pytest.approx(shape, rel=0.15 if shape < 1 else 0.06)


def test_gammas_of_the_least_shapes_are_finite_logarithms():
    logs = log_gammas(keys_of(3, np.arange(1000)), np.full((1000, 4), 1e-9))
    assert np.isfinite(logs).all()
    assert logs.max() < -1e3


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 64, 257, 1000])
def test_a_permutation_has_each_number_once_however_it_is_asked_for(limit: int):
    keys, numbers = np.repeat(keys_of(limit, np.arange(1)), limit), np.arange(limit)
    whole = permuted(keys, numbers, np.full(limit, limit))
    assert sorted(whole.tolist()) == numbers.tolist()
    for number in numbers[:: max(1, limit // 20)]:
        assert permuted(keys[:1], np.array([number]), np.array([limit])) == whole[number]


def test_permutations_come_up_equally_often():
    """All 24 orders of four numbers, for permutations at a point and for whole ones."""
    keys = keys_of(4, np.arange(MANY))
    at_points = [permuted(keys, np.full(MANY, number), np.full(MANY, 4)) for number in range(4)]
    for drawn in (np.stack(at_points, axis=1), shuffles(keys, 4)):
        counts = np.unique(drawn @ np.array([64, 16, 4, 1]), return_counts=True)[1]
        assert len(counts) == 24
        assert ((counts - MANY / 24) ** 2 / (MANY / 24)).sum() < 60  # chi-square of 23 degrees: 1 in 25,000


def test_a_large_permutation_looks_like_chance():
    limit = 5000
    numbers = permuted(np.repeat(keys_of(5, np.arange(1)), limit), np.arange(limit), np.full(limit, limit))
    assert abs(np.corrcoef(numbers, np.arange(limit))[0, 1]) < 0.06
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.06


@pytest.mark.parametrize("share", [0.0, 0.003, 0.5, 1.0])
def test_chances_are_as_told(share: float):
    drawn = chances(keys_of(6, np.arange(MANY)), 5, np.full(MANY, share))
    assert drawn.mean() == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / MANY / 5))


def test_a_shape_that_is_missing_gives_nothing():
    logs = log_gammas(keys_of(7, np.arange(3)), np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, 3.0]]))
    assert np.isneginf(logs).tolist() == [[False, True], [True, True], [False, False]]
