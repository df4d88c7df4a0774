"""Order: every sample once an epoch, weights held, and one answer whatever is asked together."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.training.data.draws import keys_of
from tokenloom.training.data.order import PERIOD, Order, Source, turns
from tokenloom.training.data.unit_order import UnitOrder

sources = st.builds(
    Source,
    st.just("photographs"),
    st.lists(st.integers(0, 7), min_size=1, max_size=20).filter(any),
    st.sampled_from([0.2, 1, 3.5]),
    st.integers(1, 3),
    st.integers(1, 3),
)
orders = st.builds(Order, st.lists(sources, min_size=1, max_size=3), st.integers(0, 99), st.integers(1, 5))


def samples(order: Order, positions: np.ndarray) -> dict[int, tuple[int, ...]]:
    """By position: source, epoch, unit, row and view."""
    found = {}
    for source, places in order.places(positions):
        columns = (places.position, places.epoch, places.unit, places.row, places.view)
        for position, *rest in np.stack(columns, axis=1).tolist():
            found[position] = (source, *rest)
    return found


def fresh(order: Order) -> Order:
    """The same order of which nothing was asked yet."""
    return Order(order.sources, order.seed, order.window)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(orders)
def test_every_sample_comes_once_an_epoch_times_its_repeats(order: Order):
    count = PERIOD * 3 // 2
    found = samples(order, np.arange(count))
    assert sorted(found) == list(range(count))
    for place, source in enumerate(order.sources):
        length = sum(source.counts) * source.repeats
        own = [rest for one, *rest in found.values() if one == place]
        everything = {(u, row): source.repeats for u, number in enumerate(source.counts) for row in range(number)}
        for epoch in range(len(own) // length):
            here = own[epoch * length : (epoch + 1) * length]
            assert {one[0] for one in here} == {epoch}
            assert Counter((unit, row) for _, unit, row, _ in here) == everything


@settings(max_examples=50, deadline=None)
@given(orders, st.lists(st.integers(0, 10**9), min_size=1, max_size=30, unique=True))
def test_a_position_has_one_sample_however_it_is_asked_for(order: Order, positions: list[int]):
    together = samples(order, np.array(sorted(positions)))
    for position in positions:
        assert samples(fresh(order), np.array([position]))[position] == together[position]


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(orders)
def test_units_are_read_from_first_to_last_and_few_at_a_time(order: Order):
    found = samples(order, np.arange(PERIOD))
    for place, source in enumerate(order.sources):
        own = [rest for one, *rest in found.values() if one == place]
        for epoch in {one[0] for one in own}:
            last, open_units, done = {}, set(), Counter()
            for unit, row in ((unit, row) for one, unit, row, _ in own if one == epoch):
                assert row == (last.get(unit, -1) + 1) % source.counts[unit]
                last[unit] = row
                open_units.add(unit)
                done[unit] += 1
                if done[unit] == source.counts[unit] * source.repeats:
                    open_units.remove(unit)
                assert len(open_units) <= order.window


@settings(deadline=None)
@given(sources, st.integers(0, 9))
def test_a_samples_views_come_in_turn(source: Source, seed: int):
    length = sum(source.counts) * source.repeats
    found = samples(Order([source], seed, 3), np.arange(source.views * length))
    seen = Counter((unit, row, view) for _, _, unit, row, view in found.values())
    assert set(seen.values()) == {source.repeats}
    assert len(seen) == sum(source.counts) * source.views


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(0, PERIOD))
def test_weights_hold_in_every_thousand(weights: list[float], start: int):
    shares = np.array(weights) / sum(weights)
    if shares.min() * PERIOD < 1:
        return
    whose = np.tile(turns(weights), 2)[start : start + PERIOD]
    assert (np.abs(np.bincount(whose, minlength=len(weights)) - shares * PERIOD) <= 1).all()
    for place, share in enumerate(shares):
        gaps = np.diff(np.flatnonzero(np.tile(turns(weights), 2) == place))
        assert gaps.max() <= len(weights) * 2 / share


@pytest.mark.parametrize(("weights", "message"), [([1, 0], "weight 1 is 0"), ([1, -1], "above 0"), ([1, 1e-5], "turn")])
def test_weights_that_give_no_turn_are_refused(weights: list[float], message: str):
    with pytest.raises(ValueError, match=message):
        turns(weights)


@pytest.mark.parametrize("counts", [[], [0, 0]])
def test_an_empty_dataset_is_refused_by_name(counts: list[int]):
    with pytest.raises(ValueError, match="photographs: has no samples"):
        Order([Source("photographs", counts)])


def test_epochs_and_seeds_differ_and_neighbours_come_from_many_units():
    source = Source("photographs", [100] * 64)
    order = Order([source], 0, 16)
    first = [unit for _, _, unit, *_ in samples(order, np.arange(6400)).values()]
    second = [unit for _, _, unit, *_ in samples(order, np.arange(6400, 12_800)).values()]
    other = [unit for _, _, unit, *_ in samples(Order([source], 1, 16), np.arange(6400)).values()]
    assert first != second
    assert first != other
    assert len(set(first[500:564])) >= 12


@pytest.mark.parametrize("runs", [1, 3, 4096])
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40).filter(any), st.integers(0, 50))
def test_units_of_any_sizes_fill_an_epoch(runs: int, counts: list[int], epoch: int):
    """However few runs there are: with thousands of units each has several places."""
    with patch("tokenloom.training.data.unit_order.RUNS", runs):
        order = UnitOrder(np.array(counts), keys_of(0, np.arange(1))).epoch(epoch)
    units = order.units(np.arange(len(counts))).tolist()
    assert sorted(units) == list(range(len(counts)))
    lengths = [counts[unit] for unit in units]
    begins = np.cumsum(lengths) - lengths
    np.testing.assert_array_equal(order.begins(np.arange(len(counts))), begins)
    ranks = order.ranks(np.arange(sum(counts)))
    np.testing.assert_array_equal(ranks, np.repeat(np.arange(len(counts)), lengths))


def test_more_units_than_runs_still_meet_others_each_epoch():
    """Units of one size: which are neighbours changes from epoch to epoch, with few runs, too."""
    with patch("tokenloom.training.data.unit_order.RUNS", 4):
        order = UnitOrder(np.full(1000, 7), keys_of(0, np.arange(1)))
    pairs = []
    for epoch in range(2):
        units = order.epoch(epoch).units(np.arange(1000)).tolist()
        pairs.append(set(pairwise(units)))
    assert len(pairs[0] & pairs[1]) < 10


def test_one_unit_of_each_size_has_an_order_of_its_own_each_epoch():
    order = UnitOrder(np.arange(1, 101), keys_of(0, np.arange(1)))
    assert len({tuple(order.epoch(epoch).units(np.arange(100)).tolist()) for epoch in range(20)}) == 20
