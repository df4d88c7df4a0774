"""The worklist: what is left to do, from one listing per modality and one of the corpus."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from .corpus.corpus import Shard
from .corpus.units import Unit, UnitNames
from .manifest import DatasetError, ModalityCard
from .storage.store import Store

_LISTINGS = 4
"""Listings at a time: S3 answers each page slowly, and each listing takes memory."""

_WINDOW = 600.0


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


@dataclass(frozen=True)
class Progress:
    """What one modality has: its finished units, and when the latest was written (unix seconds).

    rate: samples per second over the last ten minutes that something was written in; None when that can't be told.
    """

    units: frozenset[Unit]
    last: float = 0.0
    rate: float | None = None

    @property
    def samples(self) -> int:
        return sum(unit.count for unit in self.units)


def list_progress(store: Store, cards: Mapping[str, ModalityCard]) -> dict[str, Progress]:
    """The finished units of every modality, by one listing of each prefix, side by side."""
    names = UnitNames()
    with ThreadPoolExecutor(_LISTINGS) as pool:
        return dict(zip(cards, pool.map(lambda name: _progress(store, name, cards[name], names), cards), strict=True))


def _progress(store: Store, name: str, card: ModalityCard, names: UnitNames) -> Progress:
    """A unit is finished when all the shards that the card promises are there."""
    found: dict[str, set[Unit]] = {extension: set() for extension in extensions(card)}
    last_written = extensions(card)[0]
    times, counts = array("d"), array("L")
    for entry in store.list(name):
        stem, _, extension = entry.name.rpartition(".")
        if extension in found and (unit := names[stem]) is not None:
            found[extension].add(unit)
            if extension == last_written:
                times.append(entry.modified)
                counts.append(unit.count)
    units = frozenset(set.intersection(*found.values()))
    return Progress(units, max(times, default=0.0), recent_rate(np.array(times), np.array(counts)))


def recent_rate(times: np.ndarray, counts: np.ndarray) -> float | None:
    """Samples per second over the ten minutes before the last of `times` (seconds); None where all times are one.

    What the window's first moment brought was made before it, and doesn't count.
    """
    if not len(times):
        return None
    recent = times > times.max() - _WINDOW
    first, last = times[recent].min(), times.max()
    return float(counts[recent & (times > first)].sum() / (last - first)) if last > first else None


def extensions(card: ModalityCard) -> tuple[str, ...]:
    """The shards that a unit of this modality has: parquet for tokens, tar for labels. The first is written last."""
    return ("parquet",) * card.keeps_tokens + ("tar",) * card.keeps_labels


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


def is_complete(units: Iterable[Unit]) -> bool:
    """Whether the units of one corpus shard reach from its start to its end without a gap."""
    at: int | None = 0
    for unit in sorted(units, key=lambda unit: unit.start):
        if unit.start != at:
            return False
        at = unit.stop
    return at is None


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
