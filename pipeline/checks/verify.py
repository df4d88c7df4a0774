"""Verify: whether a dataset is complete, bit for bit what was written, and nothing else.

The manifest first, then what the listings tell (missing, foreign, unfinished), then every unit's content. A dataset
that can't be told apart from an unfinished one is called unfinished: the way out is the same, to run the recipe again.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from ...tokenizers.contract.files import VOCABULARY_FILE
from ..corpus.units import Unit, UnitNames
from ..dataset.finished import extensions
from ..dataset.layout import (
    ATTEMPTS,
    CORPUS,
    FIT,
    LEDGER,
    MANIFEST,
    QUARANTINE,
    TOKENIZERS,
    VOCABULARY,
    shard_path,
    tokenizer_folder,
)
from ..dataset.manifest import DatasetError, Manifest, read_manifest
from ..storage.local import TEMPORARY
from ..storage.read_ahead import in_order
from ..storage.store import Entry, Store
from .verify_unit import Fault, Findings, Holding, check_unit, key_hashes

_MANY = 20
"""Findings of one sort about one modality or folder that are listed one by one; the rest is a number."""

_GO_ON = "run the recipe again, which goes on from there"
_OWN_KEYS = "give each sample its own key in the corpus, and use another output"
_NOT_OURS = "move it elsewhere, or delete it"


@dataclass
class Report:
    """What was found. samples, units, shards and bytes: what was read and checked."""

    url: str
    modalities: int = 0
    samples: int = 0
    units: int = 0
    shards: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.faults


@dataclass
class _Inventory:
    """The names in the output. shards: the units of every (modality, extension); ledgers: by modality or `corpus`."""

    shards: dict[tuple[str, str], set[Unit]]
    ledgers: dict[str, set[Unit]]
    names: UnitNames = field(default_factory=UnitNames)

    def holders(self) -> dict[Unit, int]:
        """How many shards each unit has."""
        count: dict[Unit, int] = defaultdict(int)
        for units in self.shards.values():
            for unit in units:
                count[unit] += 1
        return count

    def holding(self, unit: Unit) -> Holding:
        shards = tuple(place for place, units in self.shards.items() if unit in units)
        return Holding(unit, shards, frozenset(name for name, units in self.ledgers.items() if unit in units))


def verify(
    where: str | os.PathLike[str] | Store,
    deep: bool = False,
    watch: Callable[[Report, int], None] = lambda report, units: None,
) -> Report:
    """Reads a whole dataset and reports whatever isn't as it was written.

    deep: also decode and check every label. watch: called with the report so far and the number of units, after each.
    Memory: a few units, the names of all units, and 8 bytes a sample.

    Raises DatasetError where there is no dataset, StorageError where it can't be read.
    """
    store = where if isinstance(where, Store) else Store(where)
    report = Report(store.url)
    manifest = _read_manifest(store, report)
    if manifest is None:
        return report
    report.modalities = len(manifest.modalities)
    inventory = _take_inventory(store, manifest, report)
    _check_tokenizers(store, manifest, report)
    units = _fitting_units(inventory, report)
    _check_completeness(manifest, inventory, units, report)
    hashes: list[np.ndarray] = []
    check = partial(check_unit, store, manifest, deep=deep)
    everything = sorted(inventory.holders())
    for found in in_order(check, (inventory.holding(unit) for unit in everything)):
        _add(report, found)
        hashes.append(key_hashes(found.keys))
        watch(report, len(everything))
    report.faults += _duplicates(everything, hashes, lambda unit: check(inventory.holding(unit)))
    return report


def _read_manifest(store: Store, report: Report) -> Manifest | None:
    try:
        manifest = read_manifest(store)
        data = store.read(MANIFEST) if manifest else b""
    except DatasetError as error:
        what = str(error).removeprefix(f"{store.url}/{MANIFEST}: ")
        report.faults.append(
            Fault("damaged", MANIFEST, what, "put back a copy of it; nothing can be checked without it")
        )
        return None
    if manifest is None:
        if not store.children():
            raise DatasetError(f"{store.url}: there is nothing here; a dataset is what `tokenloom run` writes")
        what = "there is none: no dataset of tokenloom, or it was deleted"
        report.faults.append(Fault("missing", MANIFEST, what, "put back a copy of it, or correct the URL"))
    elif (json.dumps(json.loads(data), indent=2, ensure_ascii=False) + "\n").encode() != data:
        what = "it says the same in other bytes: changed by hand, or flipped bits"
        report.faults.append(Fault("damaged", MANIFEST, what, "put back a copy of it"))
    return manifest


# --- what the listings tell ------------------------------------------------------------------------------------------


def _take_inventory(store: Store, manifest: Manifest, report: Report) -> _Inventory:
    """Everything in the output by name; what the format doesn't name becomes a fault."""
    shards = {(name, ext): set() for name, card in manifest.modalities.items() for ext in extensions(card)}
    inventory = _Inventory(shards, {name: set() for name in (*manifest.modalities, CORPUS)})
    for child in store.children():
        folder = child.rstrip("/")
        if child in (f"{TOKENIZERS}/", f"{QUARANTINE}/", MANIFEST) or child.startswith(TEMPORARY):
            continue
        if not child.endswith("/"):
            report.faults.append(_foreign(child))
        elif folder in manifest.modalities:
            report.faults += _few(_sort_shards(folder, store.list(folder), inventory), folder)
        else:
            report.faults += _few((_foreign(f"{folder}/{entry.name}") for entry in store.list(folder)), folder)
    report.faults += _few(_sort_ledgers(store.list(QUARANTINE), inventory), QUARANTINE)
    report.faults += _few((_foreign(path) for path in _temporaries(store, "", 2)), "temporary files")
    return inventory


def _sort_shards(folder: str, entries: Iterable[Entry], inventory: _Inventory) -> Iterator[Fault]:
    for entry in entries:
        stem, _, extension = entry.name.rpartition(".")
        unit = inventory.names[stem]
        if unit is None or (folder, extension) not in inventory.shards:
            yield _foreign(f"{folder}/{entry.name}")
        else:
            inventory.shards[folder, extension].add(unit)


def _sort_ledgers(entries: Iterable[Entry], inventory: _Inventory) -> Iterator[Fault]:
    units = set().union(*inventory.shards.values())
    for entry in entries:
        modality, _, name = entry.name.partition("/")
        stem, _, extension = name.rpartition(".")
        unit = inventory.names[stem] if extension == LEDGER else None
        if unit is None or modality not in inventory.ledgers:
            yield _foreign(f"{QUARANTINE}/{entry.name}")
        elif unit not in units:
            what, way_out = "no modality has its unit", f"{_GO_ON}; if it is still here then, delete it"
            yield Fault("foreign", f"{QUARANTINE}/{entry.name}", what, way_out)
        else:
            inventory.ledgers[modality].add(unit)


def _temporaries(store: Store, folder: str, depth: int) -> Iterator[str]:
    """Files that writers on a local disk left behind, which listings don't show."""
    if not store.is_local:
        return
    for child in store.children(folder):
        path = f"{folder}/{child}".lstrip("/")
        if child.endswith("/") and depth:
            yield from _temporaries(store, path.rstrip("/"), depth - 1)
        elif child.startswith(TEMPORARY):
            yield path


def _foreign(path: str) -> Fault:
    top = path.split("/")[0]
    if path.rsplit("/", 1)[-1].startswith(TEMPORARY):
        return Fault("foreign", path, "what a writer that died left behind, or one that is at work", _GO_ON)
    if top in (FIT, ATTEMPTS):
        return Fault("unfinished", path, "what a run needs until it ends", _GO_ON)
    return Fault("foreign", path, "no part of the dataset", _NOT_OURS)


def _few(faults: Iterable[Fault], where: str) -> Iterator[Fault]:
    """The first faults of many, and the number of the others."""
    more, last = 0, None
    for number, fault in enumerate(faults):
        if number < _MANY:
            yield fault
        else:
            more, last = more + 1, fault
    if last is not None:
        yield Fault(last.problem, where, f"{more:,} more like these", last.way_out)


def _check_tokenizers(store: Store, manifest: Manifest, report: Report) -> None:
    """The tokenizers' files against the digests in dataset.json, and nothing beside them but the shared vocabulary."""
    expected = {
        f"{tokenizer_folder(name)}/{file}": digest
        for name, card in manifest.modalities.items()
        for file, digest in (card.tokens.files if card.tokens else {}).items()
    }
    found = {f"{TOKENIZERS}/{entry.name}" for entry in store.list(TOKENIZERS)}
    texts = sorted(path for path in expected if path.endswith(f"/{VOCABULARY_FILE}"))
    if texts:
        expected[VOCABULARY] = expected[texts[0]]
    for path in sorted(expected.keys() | found):
        way_out = f"put back a copy of it, or make the modality anew with --replace {path.split('/')[1]}"
        if path == VOCABULARY and texts:
            way_out = f"copy {texts[0]} there"
        if path not in found:
            report.faults.append(Fault("missing", path, "the tokens can't be decoded without it", way_out))
        elif path not in expected:
            report.faults.append(_foreign(path))
        elif hashlib.sha256(store.read(path)).hexdigest() != expected[path]:
            what = "its bytes aren't those that the tokens were made with"
            report.faults.append(Fault("damaged", path, what, way_out))
    unfitted = [n for n, card in manifest.modalities.items() if card.tokens and card.tokens.spec is None]
    for name in unfitted:
        report.faults.append(Fault("unfinished", tokenizer_folder(name), "it isn't fitted yet", _GO_ON))


def _fitting_units(inventory: _Inventory, report: Report) -> dict[str, list[Unit]]:
    """By corpus shard, the units that lie side by side, in order; of units that overlap those with most shards stay."""
    by_shard: dict[str, list[Unit]] = defaultdict(list)
    holders = inventory.holders()
    for unit in holders:
        by_shard[unit.shard].append(unit)
    fitting: dict[str, list[Unit]] = {}
    for shard in sorted(by_shard):
        kept: list[Unit] = []
        for unit in sorted(by_shard[shard], key=lambda unit: (-holders[unit], unit)):
            place = bisect_left(kept, unit)
            other = next((other for other in kept[max(0, place - 1) : place + 1] if _overlap(unit, other)), None)
            if other is None:
                kept.insert(place, unit)
                continue
            for name, extension in inventory.holding(unit).shards:
                what = f"it overlaps with the unit {other.name}: renamed, or cut by other `units` settings"
                report.faults.append(Fault("misplaced", shard_path(name, unit, extension), what, _NOT_OURS))
        fitting[shard] = kept
    return fitting


def _overlap(one: Unit, other: Unit) -> bool:
    first, second = sorted((one, other), key=lambda unit: unit.start)
    return first.stop is None or first.stop > second.start or first.start == second.start


def _check_completeness(
    manifest: Manifest, inventory: _Inventory, fitting: Mapping[str, Sequence[Unit]], report: Report
) -> None:
    units = {unit for units in fitting.values() for unit in units}
    for (name, extension), there in inventory.shards.items():
        lacking = sorted(units - there)
        if lacking and not units & there:
            what = f"none of its {len(units):,} units is made yet"
            report.faults.append(Fault("unfinished", f"{name}/*.{extension}", what, _GO_ON))
        else:
            what = "other modalities have this unit"
            missing = (Fault("missing", shard_path(name, unit, extension), what, _GO_ON) for unit in lacking)
            report.faults += _few(missing, f"{name}/*.{extension}")
    report.faults += _few((gap for units in fitting.values() for gap in _gaps(units)), "corpus shards")
    digest = hashlib.sha256("\n".join(sorted(fitting)).encode()).hexdigest()
    if digest != manifest.corpus.digest:
        begun, wanted = len(fitting), manifest.corpus.shards
        if begun < wanted:
            what = f"its list of shards isn't complete: there are units of {begun:,} of {wanted:,}"
            report.faults.append(Fault("unfinished", "the corpus", what, _GO_ON))
        else:
            what = f"there are units of {begun:,} shards, which aren't the {wanted:,} that the corpus had"
            report.faults.append(Fault("foreign", "the corpus", what, "give the corpus as it was, or another output"))


def _gaps(units: Sequence[Unit]) -> Iterator[Fault]:
    """Where the units of one corpus shard don't reach from its start to its end."""
    at: int | None = 0
    for unit in units:
        if unit.start != at:
            yield Fault("unfinished", unit.shard, f"no units from position {at} to {unit.start}", _GO_ON)
        at = unit.stop
    if at is not None:
        yield Fault("unfinished", units[0].shard, f"no units from position {at} to its end", _GO_ON)


# --- what the content tells ------------------------------------------------------------------------------------------


def _add(report: Report, found: Findings) -> None:
    report.units += 1
    report.samples += len(found.keys)
    report.shards += found.shards
    report.bytes += found.bytes
    report.faults += found.faults


def _duplicates(
    units: Sequence[Unit], hashes: Sequence[np.ndarray], read: Callable[[Unit], Findings]
) -> Iterator[Fault]:
    """Keys that occur twice, the first few by name; the units of equal hashes are read again for their keys."""
    everything = np.concatenate(hashes) if hashes else np.empty(0, np.uint64)
    ordered = np.sort(everything)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        return
    starts = np.cumsum([0, *(len(some) for some in hashes)])
    keys: dict[Unit, list[str]] = {}
    for number in twice[:_MANY]:
        holders: dict[str, list[Unit]] = defaultdict(list)
        for at in np.flatnonzero(everything == number):
            index = int(np.searchsorted(starts, at, side="right")) - 1
            unit = units[index]
            if unit not in keys:
                keys[unit] = read(unit).keys
            holders[keys[unit][int(at - starts[index])]].append(unit)
        for key, where in holders.items():
            if len(where) > 1:
                what = f"{len(where)} samples have it, those of {where[0].name} and {where[1].name} among them"
                yield Fault("duplicate", f"key {key!r}", what, _OWN_KEYS)
    if len(twice) > _MANY:
        what = f"{len(twice) - _MANY:,} more keys occur more than once"
        yield Fault("duplicate", "keys", what, _OWN_KEYS)
