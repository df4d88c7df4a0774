"""Verify: whether a dataset is complete, bit for bit what was written, and nothing else.

The manifest first, then what the listings tell (missing, foreign, unfinished), then every unit's content. A dataset
that can't be told apart from an unfinished one is called unfinished: the way out is the same, to run the recipe again.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import numpy as np

from ..corpus.taken import Shard
from ..corpus.units import Unit
from ..dataset.finished import folders_of
from ..dataset.layout import (
    CORPUS,
    MANIFESTS,
    TOKENIZERS,
    VOCABULARIES,
    extension_of,
    is_listing,
    manifest_path,
    split_stem,
    stem_of,
    tokenizer_folder,
    vocabulary_path,
)
from ..dataset.listings import BrokenListingError, read_listing, taken_shards
from ..dataset.made_without import made_without
from ..dataset.manifest import DatasetError, Manifest, manifest_numbers, stale, ways_on, written
from ..dataset.shards import BrokenShardError, verify_checksum
from ..storage.read_ahead import in_order
from ..storage.recent import RecentObjects
from ..storage.store import Store
from .inventory import (
    GO_ON,
    NOT_OURS,
    Inventory,
    broken_merges,
    few,
    foreign,
    superseded_shards,
    take_inventory,
)
from .lost import WAY_OUT
from .verify_unit import MAKE_ANEW, Fault, Findings, check_unit, key_hashes

_MORE = 8
"""Merged shards that are kept beside one of each modality: as many as units are checked at the same time."""

_MANY = 20
"""Keys that occur twice that are listed by name; the rest is a number."""

_LET_GO = "delete it: it has been superseded, and is made again by who goes back to it"
_OWN_KEYS = "give each sample its own key in the corpus, and use another output"


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


def verify(
    where: str | os.PathLike[str] | Store,
    deep: bool = False,
    watch: Callable[[Report, int], None] = lambda report, units: None,
) -> Report:
    """Reads a whole dataset and reports whatever isn't as it was written.

    deep: also decode and check every label. watch: called with the report so far and the number of units, after each.
    Memory: a few units, or merged shards of each modality, the names of all units, and 8 bytes a sample.

    Raises DatasetError where there is no dataset, StorageError where it can't be read.
    """
    store = where if isinstance(where, Store) else Store(where)
    report = Report(store.url)
    manifests = _read_manifests(store, report)
    if not manifests:
        return report
    manifest = manifests[-1]
    report.modalities = len(manifest.modalities)
    damaged = bool(report.faults)
    report.faults += (broken := list(broken_merges(store, manifests)))
    if broken:
        return report
    inventory, foreigners = take_inventory(store, manifests, damaged)
    report.faults += foreigners
    _check_tokenizers(store, manifests, report)
    shards = _check_listings(store, manifests, report)
    units = _fitting_units(inventory, report)
    _check_completeness(inventory, units, report)
    if shards is not None:
        report.faults += _other_shards(set(units), shards)
    report.faults += [*_staleness(manifest), *_made_without(store, inventory)]
    checked = in_order(partial(_damage, store), superseded_shards(inventory, manifests))
    report.faults += few((fault for fault in checked if fault), "superseded shards")
    hashes: list[np.ndarray] = []
    report.shards, report.bytes = inventory.merged()
    recent = RecentObjects(store, len(inventory.places) + _MORE, verify_checksum)
    check = partial(check_unit, store, manifest.views["count"], deep=deep, merged=recent)
    everything = sorted(inventory.holders())
    for found in in_order(check, (inventory.holding(unit) for unit in everything)):
        _add(report, found)
        hashes.append(key_hashes(found.keys))
        watch(report, len(everything))
    report.faults += _duplicates(everything, hashes, lambda unit: check(inventory.holding(unit)))
    return report


def _read_manifests(store: Store, report: Report) -> list[Manifest]:
    """All of them, the last of which tells what the dataset is; none where that one can't be read."""
    numbers = manifest_numbers(store)
    if not numbers:
        if not store.children():
            raise DatasetError(f"{store.url}: there is nothing here; a dataset is what `tokenloom run` writes")
        what = "there is none: no dataset of tokenloom, or it was deleted"
        report.faults.append(Fault("missing", MANIFESTS, what, "put back a copy of it, or correct the URL"))
        return []
    found: list[Manifest] = []
    for before, number in pairwise([0, *numbers]):
        path = manifest_path(number)
        if number > before + 1:
            more = f", and {number - before - 2:,} more lack" if number > before + 2 else ""
            what = f"there are manifests of higher numbers{more}"
            report.faults.append(Fault("missing", manifest_path(before + 1), what, "put back a copy of it"))
        try:
            data = store.read(path)
            manifest = Manifest.from_bytes(data, path)
        except DatasetError as error:
            what = str(error).removeprefix(f"{path}: ")
            without = "nothing can be checked without it" if number == numbers[-1] else "readers take the last one"
            report.faults.append(Fault("damaged", path, what, f"put back a copy of it; {without}"))
            if number == numbers[-1]:
                return []
            continue
        if written(json.loads(data)) != data:
            what = "it says the same in other bytes: changed by hand, or flipped bits"
            report.faults.append(Fault("damaged", path, what, "put back a copy of it"))
        found.append(manifest)
    return found


# --- what the listings tell ------------------------------------------------------------------------------------------


def _check_tokenizers(store: Store, manifests: Sequence[Manifest], report: Report) -> None:
    """The files of tokenizers and vocabularies against the digests in the manifest, and none that no manifest names."""
    manifest = manifests[-1]
    expected: dict[str, list[str]] = defaultdict(list)
    for name in _all_names(manifest):
        for path, _ in _files_of(manifest, name):
            expected[path] += [name] if name not in expected[path] else []
    known = dict(told for one in manifests for name in _all_names(one) for told in _files_of(one, name))
    found = {f"{top}/{entry.name}" for top in (TOKENIZERS, VOCABULARIES) for entry in store.list(top)}
    for path in sorted(expected.keys() | found):
        names = ", ".join(expected.get(path, ()))
        way_out = f"put back a copy of it, or make {names} anew into another output" if names else _LET_GO
        if path not in known:
            report.faults.append(foreign(path))
        elif path not in found:
            report.faults.append(Fault("missing", path, "the tokens can't be decoded without it", way_out))
        elif hashlib.sha256(store.read(path)).hexdigest() != known[path]:
            what = "its bytes aren't those that the tokens were made with"
            report.faults.append(Fault("damaged", path, what, way_out))
    for name in (name for name, card in manifest.modalities.items() if not card.fitted):
        report.faults.append(Fault("unfinished", name, "its tokenizer isn't fitted yet", GO_ON))


def _check_listings(store: Store, manifests: Sequence[Manifest], report: Report) -> dict[str, Shard] | None:
    """The listings of the corpus that manifests name; the shards that they come to now, None where that can't be told.
    One that none names is no fault: a run leaves it that found the corpus otherwise than another at the same time."""
    named = dict.fromkeys(digest for one in manifests for digest in one.corpus.listings)
    strange = (f"{CORPUS}/{entry.name}" for entry in store.list(CORPUS) if not is_listing(entry.name))
    report.faults += few((foreign(path) for path in strange), CORPUS)
    broken = set()
    for digest in named:
        try:
            read_listing(store, digest)
        except BrokenListingError as error:
            report.faults.append(Fault("damaged", error.path, error.what, "put back a copy of it"))
            broken.add(digest)
    return None if broken.intersection(manifests[-1].corpus.listings) else taken_shards(store, manifests[-1].corpus)


def _damage(store: Store, path: str) -> Fault | None:
    """What is wrong with the bits of a superseded shard; of one that `gc` deletes meanwhile, nothing."""
    try:
        verify_checksum(store.read(path))
    except BrokenShardError as error:
        return Fault("damaged", path, str(error), _LET_GO)
    except FileNotFoundError:
        return None
    return None


def _all_names(manifest: Manifest) -> list[str]:
    return list({**manifest.modalities, **manifest.pending})


def _files_of(manifest: Manifest, name: str) -> Iterator[tuple[str, str]]:
    """Paths of the files that a modality's tokens were made with, and the SHA-256 of each."""
    for card in manifest.cards_of(name):
        if card.tokens and card.fitted:
            for file, digest in card.tokens.files.items():
                yield f"{tokenizer_folder(card.tokenizer_digest)}/{file}", digest
        if card.tokens and card.tokens.vocabulary and card.tokens.vocabulary.digest:
            yield vocabulary_path(card.tokens.vocabulary.digest), card.tokens.vocabulary.digest


def _staleness(manifest: Manifest) -> Iterator[Fault]:
    for name, reasons in stale(manifest).items():
        for reason in reasons:
            yield Fault("stale", name, reason, f"run a recipe that has it with --replace {name}")
    for name in manifest.pending:
        what = "it is being made anew: the one that readers get until then stays whole"
        yield Fault("unfinished", f"{name} (new)", what, ways_on(manifest.pending))


def _made_without(store: Store, inventory: Inventory) -> Iterator[Fault]:
    """What was made without what the dataset has by now."""
    cards = inventory.manifest.modalities
    finished = {name: inventory.stocks[name].finished(card) for name, card in cards.items()}
    lines = made_without(store, cards, finished, inventory.manifest.views["count"])
    samples = {(line.modality, line.without, line.unit, line.key) for line in lines}
    for (name, without), count in sorted(Counter(sample[:2] for sample in samples).items()):
        what = f"{count:,} of its samples were made without {without}, which is there by now"
        yield Fault("stale", name, what, "run the recipe again, or `tokenloom quarantine DATASET --retry`")


def _fitting_units(inventory: Inventory, report: Report) -> dict[str, list[Unit]]:
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
            for held in inventory.holding(unit).shards:
                what = f"it overlaps with the unit {other.name}: renamed, or cut by other `units` settings"
                report.faults.append(Fault("misplaced", held.path, what, NOT_OURS))
        fitting[shard] = kept
    return fitting


def _overlap(one: Unit, other: Unit) -> bool:
    first, second = sorted((one, other), key=lambda unit: unit.start)
    return first.stop is None or first.stop > second.start or first.start == second.start


def _check_completeness(inventory: Inventory, fitting: Mapping[str, Sequence[Unit]], report: Report) -> None:
    manifest = inventory.manifest
    current = {path: at for path, at in inventory.places.items() if at[1] == manifest.modalities.get(at[0])}
    seen = {unit for path in current for unit in inventory.units[path]}
    units = {unit for units in fitting.values() for unit in units if unit in seen}
    for folder, (name, card) in current.items():
        there = inventory.units[folder]
        lacking = sorted(units - there.keys())
        if lacking and not units & there.keys():
            what = f"none of its {len(lacking):,} units is made yet"
            report.faults.append(Fault("unfinished", f"{folder}/*.{extension_of(folder)}", what, GO_ON))
        else:
            what = "other modalities have this unit"
            beside = [inventory.units[path] for path in folders_of(name, card)]
            stems = (stem_of(unit, max(units.get(unit, 0) for units in beside)) for unit in lacking)
            paths = (f"{folder}/{stem}.{extension_of(folder)}" for stem in stems)
            report.faults += few((Fault("missing", path, what, GO_ON) for path in paths), folder)
    report.faults += few((gap for units in fitting.values() for gap in _gaps(units)), "corpus shards")


def _other_shards(begun: Set[str], shards: Mapping[str, Shard]) -> Iterator[Fault]:
    """Shards of the corpus that no unit is of, and units of what is no shard of the corpus. begun: ids of shards."""
    missing = [shard for id, shard in shards.items() if id not in begun]
    if missing:
        begun_of = f"{len(shards) - len(missing):,} of its {len(shards):,} shards"
        what = f"there are units of {begun_of}, but none of {missing[0].url}"
        yield Fault("unfinished", "the corpus", what, GO_ON)
    what = "no listing of the corpus has this shard"
    way_out = f"has a manifest been lost? Then {WAY_OUT}; else {NOT_OURS}"
    strange = (Fault("foreign", id, what, way_out) for id in sorted(begun))
    yield from few((fault for fault in strange if fault.object not in shards), "the corpus")


def _gaps(units: Sequence[Unit]) -> Iterator[Fault]:
    """Where the units of one corpus shard don't reach from its start to its end."""
    at: int | None = 0
    for unit in units:
        if unit.start != at:
            yield Fault("unfinished", unit.shard, f"no units from position {at} to {unit.start}", GO_ON)
        at = unit.stop
    if at is not None:
        yield Fault("unfinished", units[0].shard, f"no units from position {at} to its end", GO_ON)


# --- what the content tells ------------------------------------------------------------------------------------------


def _add(report: Report, found: Findings) -> None:
    report.units += 1
    report.samples += len(found.keys)
    report.shards += found.shards
    report.bytes += found.bytes
    faults = map(_tried_again, found.faults)
    report.faults += [fault for fault in faults if fault not in report.faults]  # one merged shard, many units


def _tried_again(fault: Fault) -> Fault:
    """With a way out that doesn't undo a second try, where it is of one: a run is content with the first."""
    _, revision = split_stem(fault.object.rpartition("/")[2].rpartition(".")[0])
    if fault.way_out != MAKE_ANEW or not revision:
        return fault
    return replace(fault, way_out=f"{MAKE_ANEW}; then `tokenloom quarantine DATASET --retry`, as it had been mended")


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
