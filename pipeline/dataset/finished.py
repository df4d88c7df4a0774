"""What is finished: the units of every modality, from one listing of each prefix."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..corpus.units import Unit, UnitNames
from ..storage.store import Store
from .layout import LABELS, TOKENS
from .manifest import ModalityCard

_LISTINGS = 4
"""Listings at a time: S3 answers each page slowly, and each listing takes memory."""
_WINDOW = 600.0


@dataclass(frozen=True)
class Finished:
    """What one modality has: its finished units, and when the latest was written (unix seconds).

    rate: samples per second over the last ten minutes that something was written in; None when that can't be told.
    """

    units: frozenset[Unit]
    last: float = 0.0
    rate: float | None = None

    @property
    def samples(self) -> int:
        return sum(unit.count for unit in self.units)


def list_finished(store: Store, cards: Mapping[str, ModalityCard]) -> dict[str, Finished]:
    """The finished units of every modality, by one listing of each prefix, side by side."""
    names = UnitNames()
    with ThreadPoolExecutor(_LISTINGS) as pool:
        return dict(zip(cards, pool.map(lambda name: _finished(store, name, cards[name], names), cards), strict=True))


def _finished(store: Store, name: str, card: ModalityCard, names: UnitNames) -> Finished:
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
    return Finished(units, max(times, default=0.0), recent_rate(np.array(times), np.array(counts)))


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
    """The extensions of a unit's shards, for tokens and for labels. The first is written last."""
    return (TOKENS,) * card.keeps_tokens + (LABELS,) * card.keeps_labels


def is_complete(units: Iterable[Unit]) -> bool:
    """Whether the units of one corpus shard reach from its start to its end without a gap."""
    at: int | None = 0
    for unit in sorted(units, key=lambda unit: unit.start):
        if unit.start != at:
            return False
        at = unit.stop
    return at is None
