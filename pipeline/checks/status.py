"""Status: how far a dataset is, from its output alone: one listing per modality, and the ledgers that exist."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ..corpus.left_out import LEFT_OUT
from ..corpus.samples import BROKEN_SHARD
from ..corpus.units import Unit
from ..dataset.cards import ModalityCard
from ..dataset.finished import Finished, empty_shards, is_complete, take_stock
from ..dataset.layout import CORPUS
from ..dataset.ledger import BrokenLedgerError, read_ledger
from ..dataset.manifest import require_manifest, stale
from ..dataset.standing import StandingLedgers
from ..storage.read_ahead import in_order
from ..storage.store import Store
from .nulls import NullSearch

_FEW = 3
_LEFT_OUT = LEFT_OUT.encode()

_BROKEN = BROKEN_SHARD.encode()

_IDLE = 600.0
"""Seconds without a new shard after which nothing seems to be running."""


@dataclass(frozen=True)
class ModalityStatus:
    """One modality, None where something is unknown. samples: of its finished units. quarantined: lines of its ledgers,
    one for each failed label. share: of the estimated total, in [0, 1]. rate: samples per second of late; eta: seconds
    left at that rate. last_written: unix seconds. stale: why it isn't made from what the dataset holds now. pending:
    whether it is being made anew, to take the place of the one of that name which readers get until then."""

    name: str
    units: int
    samples: int
    quarantined: int
    share: float | None
    rate: float | None
    eta: float | None
    finished: bool
    last_written: float
    stale: list[str] = field(default_factory=list)
    pending: bool = False


@dataclass(frozen=True)
class Status:
    """shards: of the corpus; complete_shards: those that some modality has to their end. total: samples that there will
    be. It is exact when every shard is complete; until then each other shard is taken to hold as many samples as a
    complete one does on average, or what has been seen of it if that is more; None while no shard is complete.
    refused: samples, or parts of shards, that the corpus reader refused. broken: why these parts can't be read. empty:
    ids of the corpus shards that hold no sample. left_out: what of the corpus isn't taken, a line for each reason;
    notes: how many more there are on what lies in its shards, which the quarantine lists. null: modalities without any
    value, as far as was looked. superseded: bytes of shards that the manifest names no more, which `gc` deletes."""

    url: str
    shards: int
    complete_shards: int
    total: int | None
    exact: bool
    refused: int
    broken: list[str]
    superseded: int
    empty: list[str]
    left_out: list[str]
    notes: int
    null: list[str]
    modalities: list[ModalityStatus]

    @property
    def finished(self) -> bool:
        return all(modality.finished for modality in self.modalities)


@dataclass(frozen=True)
class _Lines:
    """What a ledger holds: failures; of the corpus reader why parts of a shard can't be read, and what it left out."""

    failures: int
    broken: Sequence[str] = ()
    left_out: Sequence[str] = ()

    @classmethod
    def of(cls, data: bytes) -> _Lines:
        """Broken lines are for `verify` to find."""
        if _BROKEN in data or _LEFT_OUT in data:
            with suppress(BrokenLedgerError):
                lines = list(read_ledger(data))
                broken = [line.reason for line in lines if line.error == BROKEN_SHARD]
                notes = [line.reason for line in lines if line.error == LEFT_OUT]
                return cls(len(lines) - len(notes), broken, notes)
        return cls(data.count(b"\n"))


@dataclass(frozen=True)
class Counted:
    """What ledgers hold. failures: by modality, and of the corpus reader; broken: why parts of the corpus can't be
    read; left_out: notes on what its reader left out."""

    failures: dict[str, int]
    broken: list[str]
    left_out: list[str]


class LedgerCounts:
    """Lines of ledgers, each read once: nothing is ever overwritten."""

    def __init__(self, store: Store) -> None:
        self._store, self._standing = store, StandingLedgers(store)
        self._lines: dict[str, _Lines] = {}
        self.nulls = NullSearch(store)

    def read(self, cards: Mapping[str, ModalityCard], finished: Mapping[str, Finished], views: int) -> Counted:
        """Those of these modalities, and those of the corpus reader."""
        counted = Counted(defaultdict(int), [], [])
        ledgers = self._standing.list(cards, finished, views)
        new = [ledger.path for ledger in ledgers if ledger.path not in self._lines]
        data = in_order(self._store.read, new, threads=16)
        self._lines.update((path, _Lines.of(lines)) for path, lines in zip(new, data, strict=True))
        for ledger in ledgers:
            lines = self._lines[ledger.path]
            counted.failures[ledger.modality] += lines.failures
            counted.broken.extend(lines.broken)
            counted.left_out.extend(lines.left_out)
        return counted


def read_status(store: Store, ledgers: LedgerCounts | None = None, now: float | None = None) -> Status:
    """How far the dataset is. ledgers: kept by a caller that asks again and again. now: unix seconds.

    Raises DatasetError where there is no dataset.
    """
    manifest = require_manifest(store)
    stocks = take_stock(store, {**manifest.modalities, **manifest.pending}, manifest.corpus.retired)
    progress = {name: stocks[name].finished(card) for name, card in manifest.modalities.items()}
    views = manifest.views["count"]
    ledgers = ledgers or LedgerCounts(store)
    counted = ledgers.read(manifest.modalities, progress, views)
    units = frozenset().union(*(found.units for found in progress.values()))
    complete, total = estimate_total(units, manifest.corpus.shards)
    exact = complete == manifest.corpus.shards
    now, reasons = time.time() if now is None else now, stale(manifest)
    modalities = [
        _modality(name, found, counted.failures.get(name, 0), total, exact and found.units == units, now)
        for name, found in progress.items()
    ]
    modalities = [replace(one, stale=reasons.get(one.name, [])) for one in modalities]
    for name, card in manifest.pending.items():
        found = stocks[name].finished(card)
        count = ledgers.read({name: card}, {name: found}, views).failures.get(name, 0)
        modalities.append(replace(_modality(name, found, count, total, False, now), pending=True))
    return Status(
        url=store.url,
        shards=manifest.corpus.shards,
        complete_shards=complete,
        total=total,
        exact=exact,
        refused=counted.failures.get(CORPUS, 0),
        broken=counted.broken,
        superseded=sum(stock.superseded(manifest.cards_of(name)) for name, stock in stocks.items()),
        empty=empty_shards(units),
        left_out=manifest.corpus.left_out + counted.left_out[:_FEW],
        notes=max(0, len(counted.left_out) - _FEW),
        null=ledgers.nulls.find(manifest.modalities, progress, views),
        modalities=modalities,
    )


def estimate_total(units: frozenset[Unit], shards: int) -> tuple[int, int | None]:
    """How many of the corpus' `shards` are complete in `units`, and how many samples there will be (see Status)."""
    by_shard: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        by_shard[unit.shard].append(unit)
    complete = {shard for shard, own in by_shard.items() if is_complete(own)}
    samples: Mapping[str, int] = {shard: sum(unit.count for unit in own) for shard, own in by_shard.items()}
    if not complete:
        return 0, None
    mean = sum(samples[shard] for shard in complete) / len(complete)
    begun = sum(count if shard in complete else max(count, mean) for shard, count in samples.items())
    return len(complete), round(begun + mean * max(0, shards - len(samples)))


def _modality(
    name: str, progress: Finished, quarantined: int, total: int | None, finished: bool, now: float
) -> ModalityStatus:
    samples = progress.samples
    running = not finished and now - progress.last < _IDLE
    rate = progress.rate if running else None
    eta = max(0, total - samples) / rate if rate and total is not None else None
    share = 1.0 if finished else min(samples / total, 1.0) if total else None
    return ModalityStatus(name, len(progress.units), samples, quarantined, share, rate, eta, finished, progress.last)
