"""The worklist: what is left to do, from one listing per modality and one of the corpus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TypeAlias

from ..corpus.corpus import Shard
from ..corpus.units import Unit
from ..dataset.manifest import DatasetError


@dataclass(frozen=True)
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


Kept: TypeAlias = tuple[AbstractSet[Unit], Mapping[Unit, int]]
"""The units of which labels are kept, and the revisions of units that were tried again."""


def worklist(
    shards: Sequence[Shard], done: Mapping[str, Iterable[Unit]], kept: Mapping[str, Kept], todo: Sequence[str]
) -> list[Work]:
    """What is left of the modalities `todo`, in the corpus' order. Neighbouring units that lack the same are one piece.

    done: finished units; kept: those whose labels are there; by modality; units of other shards count for nothing.
    Raises DatasetError for units that overlap.
    """
    by_shard: dict[str, dict[Unit, set[str]]] = defaultdict(dict)
    for name in todo:
        for unit in done[name]:
            by_shard[unit.shard].setdefault(unit, set()).add(name)
    for units, revisions in kept.values():
        for unit in {*units, *revisions}:
            by_shard[unit.shard].setdefault(unit, set())
    return [work for shard in shards for work in _merged(_stretches(by_shard.get(shard.id, {}), kept, shard, todo))]


def _stretches(
    units: Mapping[Unit, set[str]], kept: Mapping[str, Kept], shard: Shard, todo: Sequence[str]
) -> Iterator[Work]:
    at: int | None = 0
    for unit in sorted(units, key=lambda unit: unit.start):
        if at is None or unit.start < at:
            raise DatasetError(
                f"units of {shard.path} overlap at {unit.name}: they were cut by different rules; run with the "
                f"`units` settings that the dataset was made with"
            )
        if unit.start > at:
            yield Work(shard, at, unit.start, tuple(todo))
        missing = tuple(name for name in todo if name not in units[unit])
        if missing:
            yield Work(shard, unit.start, unit.stop, missing, *kept_of(unit, kept))
        at = unit.stop
    if at is not None:
        yield Work(shard, at, None, tuple(todo))


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
