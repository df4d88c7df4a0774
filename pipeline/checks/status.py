"""Status: how far a dataset is, from its output alone: one listing per modality, and the ledgers that exist."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ..corpus.corpus import Rejection
from ..corpus.left_out import LEFT_OUT
from ..corpus.unit_sets import by_shard
from ..corpus.units import Unit
from ..dataset.cards import ModalityCard
from ..dataset.failed_labels import count_failed, each_once, failed_views, readable
from ..dataset.finished import Finished, Stock, empty_shards, superseded, take_stock, units_of
from ..dataset.layout import CORPUS
from ..dataset.ledger import BrokenLedgerError, read_ledger
from ..dataset.listings import BrokenListingError, taken_shards
from ..dataset.made_without import made_without
from ..dataset.manifest import Manifest, read_manifests, require_manifest, stale
from ..dataset.standing import LabelCount, StandingLedgers, read_ledgers
from ..storage.store import Store
from .lost import WAY_OUT, modalities_there, told, unnamed
from .nulls import NullSearch
from .reasons import Group, Reasons

_FEW = 3
_NO_KEY = b'"key": ""'
"""In a ledger's line about a part of a corpus shard."""

_IDLE = 600.0
"""Seconds without a new shard after which nothing seems to be running."""


@dataclass(frozen=True)
class ModalityStatus:
    """One modality, None where something is unknown. samples: of its finished units. quarantined: labels that failed,
    one for each view of each sample. share: of the estimated total, in [0, 1]. rate: samples per second of late; eta:
    seconds left at that rate. last_written: unix seconds. stale: why it isn't made from what the dataset holds now.
    pending: whether it is being made anew, to take the place of the one of that name which readers get until then.
    behind: samples that were made without what is there by now."""

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
    behind: int = 0


@dataclass(frozen=True)
class Status:
    """shards: of the corpus; complete_shards: those that some modality has to their end. total: samples that there will
    be. It is exact when every shard is complete; until then each other shard is taken to hold as many samples as a
    complete one does on average, or what has been seen of it if that is more; None while no shard is complete.
    refused: samples that the corpus reader refused. broken: why parts of the corpus can't be read. empty: paths of the
    corpus shards that hold no sample. left_out: what of the corpus isn't taken, a line for each reason;
    notes: how many more there are on what lies in its shards, which the quarantine lists. null: modalities without any
    value, as far as was looked. reasons: why labels failed, and samples were refused, the largest group first.
    superseded: bytes of what the manifest names no more, which `gc` deletes. lost: that
    what lies there was named by a manifest that is missing, "" where none is: then it isn't known what is superseded.
    """

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
    reasons: list[Group]
    lost: str
    modalities: list[ModalityStatus]

    @property
    def finished(self) -> bool:
        return all(modality.finished for modality in self.modalities)


@dataclass(frozen=True)
class Counted:
    """What ledgers hold. failed: labels by modality, and of the corpus what its reader refused; broken: why parts of
    the corpus can't be read; notes: on what isn't taken of it; labels: what the finished units came to with these.
    reasons: how many labels failed for each, by the number that `LedgerCounts.reasons` gives it."""

    failed: dict[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    labels: dict[str, LabelCount] = field(default_factory=dict)
    reasons: dict[int, int] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        """Samples that the corpus reader refused."""
        return self.failed.get(CORPUS, 0) - len(self.broken)

    @property
    def quarantined(self) -> int:
        """Labels that failed."""
        return sum(count for name, count in self.failed.items() if name != CORPUS)

    @property
    def first_notes(self) -> list[str]:
        return self.notes[:_FEW]

    @classmethod
    def of(cls, modality: str, ledgers: Sequence[bytes], views: int) -> Counted:
        """Broken lines are for `verify` to find."""
        if modality != CORPUS:
            return cls({modality: count_failed(ledgers, views)})
        ledger = b"".join(ledgers)
        count = ledger.count(b"\n")
        if _NO_KEY in ledger:
            with suppress(BrokenLedgerError):
                told = [Rejection(one.key, one.reason, one.error) for one in read_ledger(ledger)]
                notes = [one.reason for one in told if one.is_note]
                broken = [one.reason for one in told if one.is_of_shard]
                return cls({modality: count - len(notes)}, broken, notes)
        return cls({modality: count})


class LedgerCounts:
    """What ledgers hold, each read once: nothing is ever overwritten."""

    def __init__(self, store: Store) -> None:
        self._store, self.standing = store, StandingLedgers(store)
        self._read: dict[tuple[str, ...], Counted] = {}
        self.nulls = NullSearch(store)
        self.reasons = Reasons()

    def read(self, cards: Mapping[str, ModalityCard], finished: Mapping[str, Finished], views: int) -> Counted:
        """Those of these modalities, and those of the corpus reader."""
        failed, refused, reasons = Counter[str](), Counter[str](), Counter[int]()
        found = Counted(failed, reasons=reasons)
        standing = self.standing.list(cards, finished, views)
        new = [ledgers for ledgers in standing if ledgers.paths not in self._read]
        data = read_ledgers(self._store, new)
        self._read.update(
            (one.paths, self._counted(one.modality, read, views)) for one, read in zip(new, data, strict=True)
        )
        for ledgers in standing:
            counted = self._read[ledgers.paths]
            failed[ledgers.modality] += counted.failed[ledgers.modality]
            found.broken.extend(counted.broken)
            found.notes.extend(counted.notes)
            reasons.update(counted.reasons)
            if ledgers.modality == CORPUS:
                labels = counted.failed[CORPUS] * views
                refused.update({name: labels for name in cards if ledgers.unit in finished[name].units})
        for name in cards:
            rows = finished[name].samples * views + refused[name]
            found.labels[name] = LabelCount(rows, failed[name] + refused[name], refused[name])
        return found

    def _counted(self, modality: str, ledgers: Sequence[bytes], views: int) -> Counted:
        """What the ledgers of one unit hold."""
        counts = Counter[int]()
        for line in each_once((line for ledger in ledgers for line in readable(ledger)), views):
            if not line.is_note and line.error != LEFT_OUT:
                number = self.reasons.number(modality, line.error, line.reason, line.key)
                counts[number] += 1 if modality == CORPUS else len(failed_views(line, views))
        return replace(Counted.of(modality, ledgers, views), reasons=dict(counts))


def read_status(store: Store, ledgers: LedgerCounts | None = None, now: float | None = None) -> Status:
    """How far the dataset is. ledgers: kept by a caller that asks again and again. now: unix seconds.

    Raises DatasetError where there is no dataset.
    """
    manifest = require_manifest(store)
    stocks = take_stock(store, modalities_there(store, [manifest]), manifest.corpus.retired)
    lost = _lost(store, stocks, manifest)
    progress = {name: stocks[name].finished(card) for name, card in manifest.modalities.items()}
    views = manifest.views["count"]
    ledgers = ledgers or LedgerCounts(store)
    counted = ledgers.read(manifest.modalities, progress, views)
    units = units_of(progress.values())
    complete, total = estimate_total(units, manifest.corpus.shards)
    exact = complete == manifest.corpus.shards
    now, reasons = time.time() if now is None else now, stale(manifest)
    modalities = [
        _modality(name, found, counted.failed.get(name, 0), total, exact and found.units == units, now)
        for name, found in progress.items()
    ]
    lines = made_without(store, manifest.modalities, progress, views, ledgers.standing)
    behind = Counter(name for name, *_ in {(one.modality, one.unit, one.key) for one in lines})
    modalities = [replace(one, stale=reasons.get(one.name, []), behind=behind[one.name]) for one in modalities]
    for name, card in manifest.pending.items():
        found = stocks[name].finished(card)
        count = ledgers.read({name: card}, {name: found}, views).failed.get(name, 0)
        modalities.append(replace(_modality(name, found, count, total, False, now), pending=True))
    return Status(
        url=store.url,
        shards=manifest.corpus.shards,
        complete_shards=complete,
        total=total,
        exact=exact,
        refused=counted.refused,
        broken=counted.broken,
        superseded=0 if lost else superseded(store, manifest, stocks),
        empty=_paths(store, manifest, empty_shards(units)),
        left_out=manifest.corpus.left_out + counted.first_notes,
        notes=max(0, len(counted.notes) - _FEW),
        null=ledgers.nulls.find(manifest.modalities, progress, views),
        reasons=ledgers.reasons.groups(counted.reasons),
        lost=lost,
        modalities=modalities,
    )


def _paths(store: Store, manifest: Manifest, shards: Sequence[str]) -> list[str]:
    """Of shards of the corpus, by their ids; these where a listing is lost, which is for `verify` to tell."""
    with suppress(BrokenListingError):
        taken = taken_shards(store, manifest.corpus) if shards else {}
        return sorted(taken[id].path if id in taken else id for id in shards)
    return list(shards)


def _lost(store: Store, stocks: Mapping[str, Stock], manifest: Manifest) -> str:
    """What there is to say of a manifest that is missing. The older ones are read only where the last doesn't tell."""
    if not unnamed(store, stocks, [manifest]):
        return ""
    paths = unnamed(store, stocks, read_manifests(store))
    return f"{told(store, paths)} {WAY_OUT}" if paths else ""


def estimate_total(units: Set[Unit], shards: int) -> tuple[int, int | None]:
    """How many of the corpus' `shards` are complete in `units`, and how many samples there will be (see Status)."""
    begun = by_shard(units)
    complete = [one.samples for one in begun if one.complete]
    if not complete:
        return 0, None
    mean = sum(complete) / len(complete)
    seen = sum(one.samples if one.complete else max(one.samples, mean) for one in begun)
    return len(complete), round(seen + mean * max(0, shards - len(begun)))


def _modality(
    name: str, progress: Finished, quarantined: int, total: int | None, finished: bool, now: float
) -> ModalityStatus:
    samples = progress.samples
    running = not finished and now - progress.last < _IDLE
    rate = progress.rate if running else None
    eta = max(0, total - samples) / rate if rate and total is not None else None
    share = 1.0 if finished else min(samples / total, 1.0) if total else None
    return ModalityStatus(name, len(progress.units), samples, quarantined, share, rate, eta, finished, progress.last)
