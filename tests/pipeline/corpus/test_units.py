"""Names of units: they say everything, and are read back without loss."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenloom.pipeline.corpus.units import Unit, shard_id

paths = st.text(min_size=1, max_size=80)
positions = st.one_of(st.integers(0, 10**12 - 1), st.integers(10**12, 2**60))
units = st.builds(
    Unit,
    st.builds(shard_id, paths, st.integers(0, 2**50)),
    positions,
    st.one_of(st.none(), positions),
    st.integers(0, 99_999),
)


@given(units)
def test_a_name_is_read_back(unit):
    assert Unit.parse(unit.name) == unit
    assert re.fullmatch(r"[a-zA-Z0-9_-]+", unit.name)
    assert not unit.name.startswith("-")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "dataset",
        "photos-3f9c01ab52e7-000000000000-000000131072",
        "photos-3f9c01ab52e7-000000000000-000000131072-00256.parquet",
        "photos-3f9c01ab52-000000000000-000000131072-00256",
        "photos-3f9c01ab52e7-00000000000٣-end-00256",
        "photos-3f9c01ab52e7-0000000000000-end-00256",
    ],
)
def test_other_names_are_no_units(name):
    assert Unit.parse(name) is None


@given(st.lists(st.integers(0, 10**12 - 1), min_size=2, unique=True))
def test_units_sort_by_position_as_their_names_do(starts):
    shard = shard_id("photos.tar", 1)
    units = [Unit(shard, start, start + 1 if start < 10**12 - 1 else None, 1) for start in starts]
    random.Random(0).shuffle(units)
    assert sorted(unit.name for unit in units) == [unit.name for unit in sorted(units)]
    assert Unit(shard, 5, 9, 1) < Unit(shard, 5, None, 1)


@given(paths, paths, st.integers(0, 2**50), st.integers(0, 2**50))
def test_shard_ids_tell_paths_and_sizes_apart(path, other_path, size, other_size):
    same = (path, size) == (other_path, other_size)
    assert (shard_id(path, size) == shard_id(other_path, other_size)) == same


def test_a_shard_id_is_readable_and_stable():
    assert shard_id("train/photos 001.tar", 10) == "photos-001-" + shard_id("train/photos 001.tar", 10)[-12:]
    assert shard_id("a.tar", 1) == "a-cdf39f0f6214"
    assert shard_id("写真.tar", 1).startswith("shard-")
