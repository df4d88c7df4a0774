"""The worklist: what is left to do, from one listing per modality and one of the corpus."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, compress, pairwise
from operator import eq
from typing import TypeAlias, overload

import numpy as np

from ..corpus.corpus import Shard
from ..corpus.unit_sets import TO_END, UnitList, UnitSet
from ..corpus.units import Unit
from ..dataset.manifest import DatasetError


@dataclass(frozen=True, slots=True)
class Work:
    """A stretch of one corpus shard, `stop` None for its end, and the modalities that all its units lack.

    kept: modalities whose labels are there, so that no labeler has to make them: those of `todo` among them lack their
    tokens alone. revisions: (modality, start of a unit, revision) where what is there isn't of revision 0.
    keys: only these samples of each modality, to try them again.
    """

    shard: Shard
    start: int
    stop: int | None
    todo: tuple[str, ...]
    kept: tuple[str, ...] = ()
    revisions: tuple[tuple[str, int, int], ...] = ()
    keys: dict[str, tuple[str, ...]] | None = None

    def has(self, unit: Unit) -> bool:
        """Whether a unit of its shard, as that was cut before, is part of it."""
        return self.start <= unit.start and (self.stop is None or unit.start < self.stop)


class Worklist(Sequence[Work]):
    """Pieces of work in an order, each made when it is asked for: where every unit lacks something else, a million take
    24 bytes each."""

    def __init__(self, works: Iterable[Work] = ()) -> None:
        self._shards: list[Shard] = []
        self._kinds: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = {}
        """What pieces lack and have, `todo` and `kept`, at the numbers that the columns have."""
        self._shard, self._kind, self._start, self._stop = array("i"), array("i"), array("q"), array("q")
        self._rare: dict[int, Work] = {}
        """Those with revisions or keys, which few have."""
        for work in works:
            self._add(work)

    def _add(self, work: Work) -> None:
        if not self._shards or self._shards[-1] is not work.shard:
            self._shards.append(work.shard)
        if work.revisions or work.keys is not None:
            self._rare[len(self)] = work
        self._shard.append(len(self._shards) - 1)
        self._kind.append(self._kinds.setdefault((work.todo, work.kept), len(self._kinds)))
        self._start.append(work.start)
        self._stop.append(TO_END if work.stop is None else work.stop)

    @property
    def kinds(self) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """`todo` and `kept` of its pieces, each pair once."""
        return list(self._kinds)

    @property
    def shards(self) -> list[Shard]:
        """Of its pieces, each once, in their order."""
        return list({shard.id: shard for shard in self._shards}.values())

    @property
    def pieces(self) -> Counter[str]:
        """How many there are of each shard, by its id."""
        found = Counter[str]()
        for number, count in Counter(self._shard).items():
            found[self._shards[number].id] += count
        return found

    def by_shard(self) -> Iterator[tuple[Shard, list[Work]]]:
        """Its shards, each with all its pieces."""
        places: dict[str, list[int]] = {}
        for index, shard in enumerate(self._shards):
            places.setdefault(shard.id, []).append(index)
        ends = np.searchsorted(self._shard, np.arange(len(self._shards)), side="right").tolist()
        for indices in places.values():
            numbers = chain(*(range(ends[index - 1] if index else 0, ends[index]) for index in indices))
            yield self._shards[indices[0]], [*self._works(numbers)]

    @property
    def whole(self) -> Worklist:
        """Less the pieces that are single samples."""
        if all(work.keys is None for work in self._rare.values()):
            return self
        return Worklist(work for work in self if work.keys is None)

    def __len__(self) -> int:
        return len(self._start)

    @overload
    def __getitem__(self, index: int) -> Work: ...

    @overload
    def __getitem__(self, index: slice) -> list[Work]: ...

    def __getitem__(self, index: int | slice) -> Work | list[Work]:
        numbers = range(len(self))[index]
        return self._work(numbers, list(self._kinds)) if isinstance(numbers, int) else [*self._works(numbers)]

    def __iter__(self) -> Iterator[Work]:
        return self._works(range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    def __repr__(self) -> str:
        return f"Worklist({len(self):,} pieces)"

    def _works(self, numbers: Iterable[int]) -> Iterator[Work]:
        kinds = list(self._kinds)
        return (self._work(number, kinds) for number in numbers)

    def _work(self, number: int, kinds: Sequence[tuple[tuple[str, ...], tuple[str, ...]]]) -> Work:
        if number in self._rare:
            return self._rare[number]
        stop = self._stop[number]
        todo, kept = kinds[self._kind[number]]
        start, shard = self._start[number], self._shards[self._shard[number]]
        return Work(shard, start, None if stop == TO_END else stop, todo, kept)


Kept: TypeAlias = tuple[AbstractSet[Unit], Mapping[Unit, int]]
"""The units of which labels are kept, and the revisions of units that were tried again."""


def worklist(
    shards: Sequence[Shard],
    done: Mapping[str, Iterable[Unit]],
    kept: Mapping[str, Kept],
    todo: Sequence[str],
    again: Iterable[Work] = (),
) -> Worklist:
    """What is left of the modalities `todo`, in the corpus' order. Neighbouring units that lack the same are one piece.

    done: finished units; kept: those whose labels are there; by modality; units of other shards count for nothing.
    again: work that comes after it. Raises DatasetError for units that overlap.
    """
    rows = _Rows.of(done, kept, todo)
    return Worklist(chain((work for shard in shards for work in _merged(rows.stretches(shard))), again))


@dataclass(frozen=True)
class _Rows:
    """The units of the output, a row each, by shard and start: so that a million of twenty modalities take no more than
    some ten bytes a modality. lacking: a column for each of `todo`; labels: for each of `names`, whether they are kept.
    places: of each shard's rows, by its id. revised: revisions of kept labels that aren't 0, by shard
    and start."""

    units: UnitList
    start: np.ndarray
    stop: np.ndarray
    todo: tuple[str, ...]
    lacking: np.ndarray
    names: tuple[str, ...]
    labels: np.ndarray
    places: Mapping[str, tuple[int, int]]
    revised: Mapping[tuple[str, int], tuple[tuple[str, int, int], ...]]

    @classmethod
    def of(cls, done: Mapping[str, Iterable[Unit]], kept: Mapping[str, Kept], todo: Sequence[str]) -> _Rows:
        finished = {name: UnitSet.of(done[name]) for name in todo}
        labels = {name: UnitSet.of(units) for name, (units, _) in kept.items()}
        tried = {unit for _, revisions in kept.values() for unit in revisions}
        every = UnitSet.union([*finished.values(), *labels.values(), tried])
        table = every.table
        numbers = table.in_order(every.numbers)
        columns = table.columns

        def column(units: UnitSet) -> np.ndarray:
            return (every & units).flags[numbers] if len(units) else np.zeros(len(numbers), bool)

        def beside(sets: Iterable[UnitSet]) -> np.ndarray:
            return np.stack([np.zeros(len(numbers), bool), *map(column, sets)], axis=1)[:, 1:]

        shard = columns.shard[numbers]
        first = np.flatnonzero(np.diff(shard, prepend=-1)).tolist()
        ids = table.shards
        places = {ids[shard[at]]: (at, end) for at, end in pairwise([*first, len(numbers)])}
        revised = {(unit.shard, unit.start): kept_of(unit, kept)[1] for unit in tried}
        lacking, held = ~beside(finished.values()), beside(labels.values())
        start, stop = columns.start[numbers], columns.stop[numbers]
        return cls(UnitList(table, numbers), start, stop, tuple(todo), lacking, tuple(labels), held, places, revised)

    def stretches(self, shard: Shard) -> Iterator[Work]:
        """The pieces of a shard that lack something: gaps, and neighbouring units that are alike."""
        at, end = self.places.get(shard.id, (0, 0))
        self._refuse_overlaps(shard, at, end)
        position: int | None = 0
        for row, after in pairwise([*self._begins(at, end), end]):
            start, stop = int(self.start[row]), int(self.stop[after - 1])
            if position is not None and start > position:
                yield Work(shard, position, start, self.todo)
            position = None if stop == TO_END else stop
            todo = _chosen(self.todo, self.lacking[row].tobytes())
            if todo:
                held = _chosen(self.names, self.labels[row].tobytes())
                yield Work(shard, start, position, todo, held, self._revisions(shard, row, after))
        if position is not None:
            yield Work(shard, position, None, self.todo)

    def _refuse_overlaps(self, shard: Shard, at: int, end: int) -> None:
        start, stop = self.start[at:end], self.stop[at:end]
        wrong = np.flatnonzero((start[1:] < stop[:-1]) | (stop[:-1] == TO_END))
        if len(wrong):
            raise DatasetError(
                f"units of {shard.path} overlap at {self.units[at + int(wrong[0]) + 1].name}: they were cut by "
                f"different rules; run with the `units` settings that the dataset was made with"
            )

    def _begins(self, at: int, end: int) -> list[int]:
        """The rows at which something differs from the row before, or there is a gap."""
        if at == end:
            return []
        alike = (self.lacking[at + 1 : end] == self.lacking[at : end - 1]).all(axis=1)
        alike &= (self.labels[at + 1 : end] == self.labels[at : end - 1]).all(axis=1)
        alike &= self.start[at + 1 : end] == self.stop[at : end - 1]
        return [at, *(at + 1 + np.flatnonzero(~alike)).tolist()]

    def _revisions(self, shard: Shard, row: int, after: int) -> tuple[tuple[str, int, int], ...]:
        if not self.revised:
            return ()
        starts = self.start[row:after].tolist()
        return tuple(one for start in starts for one in self.revised.get((shard.id, start), ()))


@lru_cache(2**12)
def _chosen(names: tuple[str, ...], flags: bytes) -> tuple[str, ...]:
    """The names whose flags are 1: one tuple for all rows that are alike, of which there may be many."""
    return tuple(compress(names, flags))


def kept_of(unit: Unit, kept: Mapping[str, Kept]) -> tuple[tuple[str, ...], tuple[tuple[str, int, int], ...]]:
    """`kept` and `revisions` of a Work of that unit."""
    names = tuple(name for name, (units, _) in kept.items() if unit in units)
    revised = ((name, unit.start, revisions.get(unit, 0)) for name, (_, revisions) in kept.items())
    return names, tuple(one for one in revised if one[2])


def _merged(stretches: Iterable[Work]) -> list[Work]:
    merged: list[Work] = []
    for work in stretches:
        last = merged[-1] if merged else None
        if last and (last.stop, last.todo, last.kept) == (work.start, work.todo, work.kept):
            merged[-1] = replace(last, stop=work.stop, revisions=last.revisions + work.revisions)
        else:
            merged.append(work)
    return merged
