"""Sets of units do what sets do, over one table or several."""

from __future__ import annotations

import operator
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenloom.pipeline.corpus.unit_sets import UnitSet, UnitTable, by_shard
from tokenloom.pipeline.corpus.units import Unit

UNITS = [Unit(f"s{shard}-0123456789ab", at, None if at == 3 else at + 1, at) for shard in range(3) for at in range(4)]
some = st.sets(st.sampled_from(UNITS))
OPERATIONS = (operator.and_, operator.or_, operator.sub, operator.xor, operator.le, operator.eq, operator.ne)


@given(some, some, some)
def test_they_do_what_sets_do(one, other, first):
    table = UnitTable()
    UnitSet.of(first, table)
    ours, same, foreign = UnitSet.of(one, table), UnitSet.of(other, table), UnitSet.of(other)
    for operate in OPERATIONS:
        for beside in (same, foreign, frozenset(other), dict.fromkeys(other).keys()):
            assert operate(ours, beside) == operate(one, other)
            assert operate(beside, ours) == operate(other, one)
    assert UnitSet.union([one, same, foreign, frozenset()]) == one | other
    assert (len(ours), set(ours), list(ours.in_order())) == (len(one), one, sorted(one))
    assert {unit for unit in UNITS if unit in ours} == one
    assert ours.samples == sum(unit.count for unit in one)
    assert ours.with_samples() == {unit for unit in one if unit.count}
    assert pickle.loads(pickle.dumps((ours, same))) == (one, other)


@given(some)
def test_shards_are_complete_or_not(units):
    found = {one.shard: (one.complete, one.samples) for one in by_shard(units)}
    own = {shard: [unit for unit in units if unit.shard == shard] for shard in {unit.shard for unit in units}}
    assert found == {shard: (len(held) == 4, sum(unit.count for unit in held)) for shard, held in own.items()}


def test_units_in_order_are_made_one_by_one():
    units = UnitSet.of(reversed(UNITS)).in_order()
    assert (units[0], units[-1], list(units[2:5])) == (UNITS[0], UNITS[-1], UNITS[2:5])
    with pytest.raises(IndexError):
        units[len(UNITS)]


def test_a_name_that_no_unit_has_is_none():
    table = UnitTable()
    names = ("notes", f"s-0123456789ab-000000000000-{'9' * 30}-00001", f"below/{UNITS[0].name}")
    assert [table.number(name) for name in names] == [None, None, None]
    assert table.number(UNITS[0].name) == table.number(UNITS[0].name) == 0
