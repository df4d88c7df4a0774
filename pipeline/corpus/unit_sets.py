"""Sets of units, of a million of which twenty modalities have nearly all: a byte a unit, over one table of them all."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence, Set
from functools import reduce
from itertools import pairwise
from operator import or_
from threading import Lock
from typing import Any, NamedTuple, overload

import numpy as np

from .units import Unit

TO_END = -1
"""In a column of stops: the last unit of its shard."""
_LARGEST = 2**63


class Columns(NamedTuple):
    """What the units of a table are, one place each, int64. shard: an index; stop: -1 for the end."""

    shard: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    count: np.ndarray


class UnitTable:
    """Units by number, in the order in which they were first named. Several threads may add to it."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        """Of the units that it has, by name."""
        self._shards: dict[str, int] = {}
        self._values = tuple(array("q") for _ in Columns._fields)
        self._columns: Columns | None = None
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._values[0])

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self._shards, "values": self._values}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._shards, self._values, self._columns, self._lock = state["shards"], state["values"], None, Lock()
        self.numbers = {unit.name: number for number, unit in enumerate(self.units(np.arange(len(self))))}

    def number(self, name: str) -> int | None:
        """Of the unit of that name, which is added where it is new; None for a name that isn't a unit's."""
        found = self.numbers.get(name)
        if found is None:
            unit = Unit.parse(name)
            return self.add(unit) if unit and max(unit.start, unit.stop or 0) < _LARGEST else None
        return found

    def add(self, unit: Unit) -> int:
        name = unit.name
        with self._lock:
            number = self.numbers.get(name)
            if number is None:
                number, shard = len(self), self._shards.setdefault(unit.shard, len(self._shards))
                row = (shard, unit.start, TO_END if unit.stop is None else unit.stop, unit.count)
                for values, value in zip(self._values, row, strict=True):
                    values.append(value)
                self.numbers[name], self._columns = number, None
            return number

    @property
    def columns(self) -> Columns:
        with self._lock:
            if self._columns is None:
                self._columns = Columns(*(np.array(values, np.int64) for values in self._values))
            return self._columns

    @property
    def shards(self) -> list[str]:
        """The shards' ids, at the indices that `Columns` has."""
        return list(self._shards)

    def units(self, numbers: np.ndarray) -> Iterator[Unit]:
        """The units of these numbers, in their order."""
        columns, shards = self.columns, self.shards
        for shard, start, stop, count in zip(*(column[numbers].tolist() for column in columns), strict=True):
            yield Unit(shards[shard], start, None if stop == TO_END else stop, count)

    def in_order(self, numbers: np.ndarray) -> np.ndarray:
        """The numbers as the units sort."""
        columns, shards = self.columns, np.array(self.shards, np.str_)
        rank = np.empty(len(shards), np.int64)
        rank[np.argsort(shards)] = np.arange(len(shards))
        shard, start, stop, count = (column[numbers] for column in columns)
        return numbers[np.lexsort((count, stop, stop == TO_END, start, rank[shard]))]


class UnitSet(Set[Unit]):
    """A set of units, immutable. Sets over one table are compared and joined at once; others unit by unit."""

    __slots__ = ("flags", "table")

    def __init__(self, table: UnitTable, flags: np.ndarray) -> None:
        """flags: by the table's numbers; false for those past its end."""
        self.table, self.flags = table, flags

    @classmethod
    def numbered(cls, table: UnitTable, numbers: np.ndarray) -> UnitSet:
        flags = np.zeros(len(table), bool)
        flags[numbers] = True
        return cls(table, flags)

    @classmethod
    def of(cls, units: Iterable[Unit], table: UnitTable | None = None) -> UnitSet:
        """The units, of any iterable; over this table, to which those are added that it lacks."""
        if isinstance(units, UnitSet) and table in (None, units.table):
            return units
        table = UnitTable() if table is None else table
        return cls.numbered(table, np.array([table.add(unit) for unit in units], np.int64))

    @classmethod
    def union(cls, sets: Iterable[Set[Unit]]) -> UnitSet:
        """All that any of them has."""
        return cls.of(reduce(or_, (cls.of(units) for units in sets if len(units)), cls.of(())))

    _from_iterable = of

    def __contains__(self, unit: object) -> bool:
        number = self.table.numbers.get(unit.name) if isinstance(unit, Unit) else None
        return number is not None and number < len(self.flags) and bool(self.flags[number])

    def __iter__(self) -> Iterator[Unit]:
        return self.table.units(self.numbers)

    def __len__(self) -> int:
        return int(np.count_nonzero(self.flags))

    def __hash__(self) -> int:
        return self._hash()

    def __repr__(self) -> str:
        return f"UnitSet({len(self):,} units)"

    @property
    def numbers(self) -> np.ndarray:
        return np.flatnonzero(self.flags)

    @property
    def samples(self) -> int:
        """Of all its units together."""
        return int(self.table.columns.count[self.numbers].sum())

    def with_samples(self) -> UnitSet:
        """Less the units that have none."""
        numbers = self.numbers
        return self.numbered(self.table, numbers[self.table.columns.count[numbers] > 0])

    def in_order(self) -> UnitList:
        return UnitList(self.table, self.table.in_order(self.numbers))

    def __and__(self, other: Iterable[Unit]) -> UnitSet:
        if _is_empty(other):
            return UnitSet(self.table, self.flags[:0])
        one, two = self._beside(other)
        return UnitSet(self.table, one & two)

    def __or__(self, other: Iterable[Unit]) -> UnitSet:  # type: ignore[override]
        if _is_empty(other):
            return self
        if isinstance(other, UnitSet) and not len(self):
            return other
        one, two = self._beside(UnitSet.of(other, self.table))
        return UnitSet(self.table, one | two)

    def __sub__(self, other: Iterable[Unit]) -> UnitSet:  # type: ignore[override]
        if _is_empty(other):
            return self
        one, two = self._beside(other)
        return UnitSet(self.table, one & ~two)

    __rand__, __ror__ = __and__, __or__

    def __le__(self, other: Set[Unit]) -> bool:
        if isinstance(other, UnitSet) and other.table is self.table:
            one, two = self._beside(other)
            return not (one & ~two).any()
        return super().__le__(other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Set) and len(self) == len(other) and self <= other

    def _beside(self, other: Iterable[Unit]) -> tuple[np.ndarray, np.ndarray]:
        """Its flags and those of the other, as far as the table has that's units, of one length."""
        if isinstance(other, UnitSet) and other.table is self.table:
            flags = other.flags
        else:
            found = (self.table.numbers.get(unit.name) for unit in other)
            flags = self.numbered(self.table, np.array([n for n in found if n is not None], np.int64)).flags
        size = max(len(self.flags), len(flags))
        return _padded(self.flags, size), _padded(flags, size)


class UnitList(Sequence[Unit]):
    """Units in an order, each made when it is asked for."""

    def __init__(self, table: UnitTable, numbers: np.ndarray) -> None:
        self._table, self._numbers = table, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Unit: ...

    @overload
    def __getitem__(self, index: slice) -> UnitList: ...

    def __getitem__(self, index: int | slice) -> Unit | UnitList:
        if isinstance(index, slice):
            return UnitList(self._table, self._numbers[index])
        (unit,) = self._table.units(self._numbers[[index]])
        return unit

    def __iter__(self) -> Iterator[Unit]:
        return self._table.units(self._numbers)


def lists_by_shard(units: Iterable[Unit]) -> dict[str, UnitList]:
    """The units of each corpus shard in their order, by the shards' ids."""
    found = UnitSet.of(units)
    table = found.table
    numbers, ids = table.in_order(found.numbers), table.shards
    shard = table.columns.shard[numbers]
    first = np.flatnonzero(np.diff(shard, prepend=-1)).tolist()
    return {ids[shard[at]]: UnitList(table, numbers[at:end]) for at, end in pairwise([*first, len(numbers)])}


class ShardUnits(NamedTuple):
    """The units of one corpus shard. complete: whether they reach from its start to its end without a gap."""

    shard: str
    complete: bool
    samples: int


def by_shard(units: Iterable[Unit]) -> list[ShardUnits]:
    """What a set has of each corpus shard, by their ids."""
    found = UnitSet.of(units)
    numbers, columns = found.table.in_order(found.numbers), found.table.columns
    if not len(numbers):
        return []
    shard, start, stop, count = (column[numbers] for column in columns)
    first = np.flatnonzero(np.diff(shard, prepend=-1))
    last = np.append(first[1:], len(numbers)) - 1
    follows = np.append(False, start[1:] == stop[:-1])
    follows[first] = start[first] == 0
    complete = np.logical_and.reduceat(follows, first) & (stop[last] == TO_END)
    ids, samples = found.table.shards, np.add.reduceat(count, first)
    told = zip(shard[first].tolist(), complete.tolist(), samples.tolist(), strict=True)
    return [ShardUnits(ids[index], whole, total) for index, whole, total in told]


def _is_empty(units: Iterable[Unit]) -> bool:
    return isinstance(units, Set) and not len(units)


def _padded(flags: np.ndarray, size: int) -> np.ndarray:
    return flags if len(flags) == size else np.append(flags, np.zeros(size - len(flags), bool))
