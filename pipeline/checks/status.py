"""Status: how far a dataset is, from its output alone: one listing per modality, and the ledgers that exist."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..corpus.units import Unit
from ..dataset.finished import Finished, is_complete, list_finished
from ..dataset.layout import CORPUS, QUARANTINE
from ..dataset.manifest import require_manifest
from ..storage.read_ahead import in_order
from ..storage.store import Entry, Store

_IDLE = 600.0
"""Seconds without a new shard after which nothing seems to be running."""


@dataclass(frozen=True)
class ModalityStatus:
    """One modality, None where something is unknown. samples: of its finished units. quarantined: lines of its ledgers,
    one for each failed label. share: of the estimated total, in [0, 1]. rate: samples per second of late; eta: seconds
    left at that rate. last_written: unix seconds."""

    name: str
    units: int
    samples: int
    quarantined: int
    share: float | None
    rate: float | None
    eta: float | None
    finished: bool
    last_written: float


@dataclass(frozen=True)
class Status:
    """shards: of the corpus; complete_shards: those that some modality has to their end. total: samples that there will
    be. It is exact when every shard is complete; until then each other shard is taken to hold as many samples as a
    complete one does on average, or what has been seen of it if that is more; None while no shard is complete.
    refused: samples, or parts of shards, that the corpus reader refused."""

    url: str
    shards: int
    complete_shards: int
    total: int | None
    exact: bool
    refused: int
    modalities: list[ModalityStatus]

    @property
    def finished(self) -> bool:
        return all(modality.finished for modality in self.modalities)


@dataclass
class LedgerCounts:
    """Lines of ledgers, each read once: a ledger of the same size and time is the same."""

    _lines: dict[Entry, int] = field(default_factory=dict)

    def read(self, store: Store) -> dict[str, int]:
        """Lines by modality, and those of the corpus reader."""
        counts: dict[str, int] = defaultdict(int)
        entries = store.list(QUARANTINE)
        new = [entry for entry in entries if entry not in self._lines]
        data = in_order(lambda entry: store.read(f"{QUARANTINE}/{entry.name}"), new, threads=16)
        self._lines.update((entry, lines.count(b"\n")) for entry, lines in zip(new, data, strict=True))
        for entry in entries:
            counts[entry.name.split("/")[0]] += self._lines[entry]
        return counts


def read_status(store: Store, ledgers: LedgerCounts | None = None, now: float | None = None) -> Status:
    """How far the dataset is. ledgers: kept by a caller that asks again and again. now: unix seconds.

    Raises DatasetError where there is no dataset.
    """
    manifest = require_manifest(store)
    progress = list_finished(store, manifest.modalities)
    failed = (ledgers or LedgerCounts()).read(store)
    units = frozenset().union(*(found.units for found in progress.values()))
    complete, total = estimate_total(units, manifest.corpus.shards)
    exact = complete == manifest.corpus.shards
    now = time.time() if now is None else now
    return Status(
        url=store.url,
        shards=manifest.corpus.shards,
        complete_shards=complete,
        total=total,
        exact=exact,
        refused=failed.get(CORPUS, 0),
        modalities=[
            _modality(name, found, failed.get(name, 0), total, exact and found.units == units, now)
            for name, found in progress.items()
        ],
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
