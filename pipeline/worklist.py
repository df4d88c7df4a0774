"""The worklist: what is left to do, from one listing per modality and one of the corpus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from .corpus import Shard
from .manifest import DatasetError, ModalityCard
from .storage import Store
from .units import Unit


@dataclass(frozen=True)
class Work:
    """A stretch of one corpus shard, `stop` None for its end, and the modalities that all its units lack.

    units: stop after so many, to read a sample.
    """

    shard: Shard
    start: int
    stop: int | None
    todo: tuple[str, ...]
    units: int | None = None


@dataclass(frozen=True)
class Progress:
    """What one modality has: its finished units, and when the earliest and the latest was written (unix seconds)."""

    units: frozenset[Unit]
    first: float = 0.0
    last: float = 0.0

    @property
    def samples(self) -> int:
        return sum(unit.count for unit in self.units)


def list_progress(store: Store, cards: Mapping[str, ModalityCard]) -> dict[str, Progress]:
    """The finished units of every modality, by one listing of each prefix, side by side."""
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(cards, pool.map(lambda name: _progress(store, name, cards[name]), cards), strict=True))


def _progress(store: Store, name: str, card: ModalityCard) -> Progress:
    """A unit is finished when all the shards that the card promises are there."""
    found: dict[str, set[Unit]] = {extension: set() for extension in extensions(card)}
    first, last = float("inf"), 0.0
    for entry in store.list(name):
        stem, _, extension = entry.name.rpartition(".")
        unit = Unit.parse(stem)
        if unit is not None and extension in found:
            found[extension].add(unit)
            first, last = min(first, entry.modified), max(last, entry.modified)
    return Progress(frozenset(set.intersection(*found.values())), first, last)


def extensions(card: ModalityCard) -> tuple[str, ...]:
    """The shards that a unit of this modality has: parquet for tokens, tar for labels."""
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
            f"the output holds units of {len(strangers)} shards that the corpus hasn't (the first: {strangers[0]}); the "
            f"corpus has changed since, or this is another corpus: use another output, or give the corpus as it was"
        )
