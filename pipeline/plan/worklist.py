"""The worklist: what is left to do, from one listing per modality and one of the corpus."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..corpus.corpus import Shard
from ..corpus.units import Unit, spread
from ..dataset.manifest import DatasetError


@dataclass(frozen=True)
class Work:
    """A stretch of one corpus shard, `stop` None for its end, and the modalities that all its units lack.

    units: stop after so many, to read a sample. keys: only these samples, to try them again.
    """

    shard: Shard
    start: int
    stop: int | None
    todo: tuple[str, ...]
    units: int | None = None
    keys: tuple[str, ...] | None = None


def worklist(shards: Sequence[Shard], done: Mapping[str, Iterable[Unit]], todo: Sequence[str]) -> list[Work]:
    """What is left of the modalities `todo`, in the corpus' order. Neighbouring units that lack the same are one piece.

    Raises DatasetError when the output holds units of shards that the corpus hasn't, or units that overlap.
    """
    by_shard: dict[str, dict[Unit, set[str]]] = defaultdict(dict)
    for name in todo:
        for unit in done[name]:
            by_shard[unit.shard].setdefault(unit, set()).add(name)
    _refuse_strangers(by_shard, shards)
    return [work for shard in shards for work in _merged(_stretches(by_shard.get(shard.id, {}), shard, todo))]


def _stretches(units: Mapping[Unit, set[str]], shard: Shard, todo: Sequence[str]) -> Iterator[Work]:
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
            yield Work(shard, unit.start, unit.stop, missing)
        at = unit.stop
    if at is not None:
        yield Work(shard, at, None, tuple(todo))


def _merged(stretches: Iterable[Work]) -> list[Work]:
    merged: list[Work] = []
    for work in stretches:
        if merged and merged[-1].stop == work.start and merged[-1].todo == work.todo:
            merged[-1] = replace(merged[-1], stop=work.stop)
        else:
            merged.append(work)
    return merged


def _refuse_strangers(by_shard: Mapping[str, object], shards: Sequence[Shard]) -> None:
    strangers = sorted(set(by_shard) - {shard.id for shard in shards})
    if strangers:
        raise DatasetError(
            f"the output holds units of {len(strangers)} shards that the corpus hasn't (the first: {strangers[0]}); "
            f"the corpus has changed since, or this is another one: use another output, or give the corpus as it was"
        )


def sample_of(shards: Sequence[Shard], units: int) -> list[Work]:
    """About `units` units: the first ones of shards that are spread evenly over the corpus."""
    each = math.ceil(units / len(shards))
    return [Work(shard, 0, None, (), units=each) for shard in spread(shards, units)]
