"""Garbage: what nobody reads any more, and its removal.

A manifest is read for a while after it has been superseded, by those who opened the dataset before. So what it names
stays until then, and so does whatever was written lately, since its manifest may still be to come.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta

from ..corpus.units import shard_of
from ..dataset.finished import Finished, Stock, folders_of, take_stock, unnamed_tokenizers
from ..dataset.layout import (
    ATTEMPTS,
    CORPUS,
    DOCTORS,
    FIT,
    MANIFESTS,
    MERGES,
    QUARANTINE,
    is_merged,
    label_folder,
    listing_path,
    manifest_number,
    split_ledger_name,
    split_stem,
    stem_of,
)
from ..dataset.manifest import (
    DatasetError,
    Manifest,
    manifest_numbers,
    read_manifest_at,
    read_manifests,
    require_manifest,
)
from ..dataset.standing import StandingLedgers
from ..storage.store import Entry, Store
from .lost import WAY_OUT, modalities_there, told, unnamed
from .merged_garbage import MergedLately, is_nobodys, lists_by_folder

KEEP = timedelta(days=1)
_CLOCK = f"{FIT}/_clock"
"""Where an object is written for the time that the store puts on it."""

_AT_ONCE = 50
"""Objects that are deleted before it is looked again whether a manifest names them."""


@dataclass(frozen=True)
class Garbage:
    """An object that nothing needs. path: in the dataset; what: why it is there."""

    path: str
    size: int
    what: str


def remove_garbage(store: Store, keep: timedelta = KEEP) -> list[Garbage]:
    """Deletes what `find_garbage` finds, the shards of a unit before what they refer to; what was deleted.

    Looks again whenever a manifest is written meanwhile, which may name again what was superseded.
    """
    require_manifest(store)
    deleted: list[Garbage] = []
    while True:
        before = manifest_numbers(store)
        garbage = sorted(find_garbage(store, keep, _store_time(store)), key=lambda one: one.path.startswith(QUARANTINE))
        for number, one in enumerate(garbage):
            if number % _AT_ONCE == 0 and manifest_numbers(store) != before:
                break
            store.delete(one.path)
            deleted.append(one)
        else:
            return deleted


def find_garbage(store: Store, keep: timedelta = KEEP, now: float | None = None) -> list[Garbage]:
    """What has been superseded for longer than `keep`. Writes nothing.

    now: unix seconds, by the store's own clock; by default by this machine's, which will do where nothing is deleted.
    Raises DatasetError where there is no dataset, or a manifest can't be read or has been lost: then nothing is known
    to be needed by nobody.
    """
    require_manifest(store)
    oldest = (time.time() if now is None else now) - keep.total_seconds()
    current, living = _living(store, oldest)
    modalities = modalities_there(store, living)
    stocks = take_stock(store, modalities, ())
    _refuse_lost(store, stocks)
    entries = {name: store.list(name) for name in modalities}
    settled = {_stem(f"{name}/{e.name}") for name in modalities for e in entries[name] if e.modified < oldest}
    merged = {
        path: lately for name in modalities for path, lately in _merged(store, stocks[name], entries[name], oldest)
    }
    settled |= {f"{path}/{stem}" for path, lately in merged.items() for stem in lately.covered}
    found = [
        one for name in modalities for one in _of_modality(store, entries[name], stocks[name], living, settled, merged)
    ]
    found += _ledgers(store, current, living, stocks, settled)
    listings = {listing_path(digest) for one in living for digest in one.corpus.listings}
    taken = ((f"{CORPUS}/{entry.name}", entry) for entry in store.list(CORPUS))
    found += [(path, entry, "no manifest names it") for path, entry in taken if path not in listings]
    fitting = any(not card.fitted for cards in (current.modalities, current.pending) for card in cards.values())
    if not fitting:  # else a tokenizer may be there that is about to be named
        found += _made_tokens(store, living)
    tops = (ATTEMPTS,) if fitting else (ATTEMPTS, FIT)
    found += [(f"{top}/{entry.name}", entry, "left of a run that died") for top in tops for entry in store.list(top)]
    marks = (entry for entry in store.list(recursive=False) if entry.name.startswith(DOCTORS))
    found += [(entry.name, entry, "left of a doctor that died, or could delete nothing") for entry in marks]
    return [Garbage(path, entry.size, what) for path, entry, what in found if entry.modified < oldest]


def _refuse_lost(store: Store, stocks: Mapping[str, Stock]) -> None:
    """Raises DatasetError where what looks like garbage is what a manifest named that is there no more."""
    paths = unnamed(store, stocks, read_manifests(store))
    if paths:
        raise DatasetError(f"{store.url}: {told(store, paths)} Until that is clear nothing is deleted: {WAY_OUT}")


def _store_time(store: Store) -> float:
    """The store's own clock, unix seconds: that which it puts on an object that is written now."""
    name = uuid.uuid4().hex
    path = f"{_CLOCK}/{name}"
    store.create(path, b"")
    try:
        return store.stat(path).modified
    finally:
        store.delete(path)


def _living(store: Store, oldest: float) -> tuple[Manifest, list[Manifest]]:
    """The manifest that holds, and all those that held at some time since `oldest`."""
    numbered = sorted(
        (number, entry.modified)
        for entry in store.list(MANIFESTS, recursive=False)
        if (number := manifest_number(entry.name)) is not None
    )
    ends = [began for _, began in numbered[1:]] + [float("inf")]
    living = [read_manifest_at(store, number) for (number, _), end in zip(numbered, ends, strict=True) if end >= oldest]
    return living[-1], living


def _stem(path: str) -> str:
    """A shard's path, less its extension."""
    return path.rpartition(".")[0]


def _merged(store: Store, stock: Stock, entries: Sequence[Entry], oldest: float) -> Iterator[tuple[str, MergedLately]]:
    """What the lists of merged shards told since `oldest`, by folder; for all folders."""
    lists = lists_by_folder(stock.modality, entries)
    for path, folder in stock.folders.items():
        yield path, MergedLately.since(store, path, folder, lists.get(path, []), oldest)


def _of_modality(
    store: Store,
    entries: Sequence[Entry],
    stock: Stock,
    living: Sequence[Manifest],
    settled: Set[str],
    merged: Mapping[str, MergedLately],
) -> Iterator[tuple[str, Entry, str]]:
    """Shards of generations that no living manifest names, or of a part of the corpus that is retired in all of them;
    of revisions that one of the `settled`, which have been there for as long as is kept, supersedes; and what has been
    read in merged shards for so long. What is foreign isn't ours to delete."""
    name = stock.modality
    cards = [card for one in living for card in one.cards_of(name)]
    named = {folder for card in cards if card.fitted for folder in folders_of(name, card)}
    named |= {label_folder(name, card.labels_generation) for card in cards if not card.fitted}
    retired = _retired(living)
    oldest_read = stock.oldest_read(cards, settled)
    for entry in entries:
        path = f"{name}/{entry.name}"
        folder, _, file = path.rpartition("/")
        unit_name, revision = split_stem(_stem(file))
        if file in stock.folder(folder).foreign:
            continue
        below, number = folder.removesuffix(f"/{MERGES}"), manifest_number(file)
        if below not in named:
            yield path, entry, "a generation that was replaced"
        elif number is not None:
            if number not in merged[below].lists:
                yield path, entry, "a list of merged shards that another one replaced"
        elif is_merged(file):
            stem = _stem(file)
            if stem not in merged[folder].named and is_nobodys(store, folder, stock.folder(folder), stem, retired):
                yield path, entry, "merged shards whose units were merged anew, or of a compaction that died"
        elif shard_of(unit_name) in retired:
            yield path, entry, "of a part of the corpus that changed, or is gone"
        elif revision < oldest_read.get((folder, unit_name), 0):
            yield path, entry, "a unit that was tried again"
        elif _stem(file) in merged[folder].covered:
            yield path, entry, "a unit that was merged with others"


def _retired(living: Sequence[Manifest]) -> frozenset[str]:
    """The shards of the corpus that count in none of the manifests."""
    return frozenset.intersection(*(frozenset(one.corpus.retired) for one in living))


def _ledgers(
    store: Store, current: Manifest, living: Sequence[Manifest], stocks: Mapping[str, Stock], settled: Set[str]
) -> Iterator[tuple[str, Entry, str]]:
    """Those of generations that no living manifest names, and those of the present ones that no shard refers to, where
    that which is read instead is `settled`."""
    known: set[tuple[str, str]] = set()
    for one in living:
        for name in (*one.modalities, *one.pending):
            for card in one.cards_of(name):
                known |= {(name, card.labels_generation), (CORPUS, card.corpus_generation)}
                known |= {(name, card.tokens_generation)} if card.tokens and card.fitted else set()
    finished: dict[str, Finished] = {n: stocks[n].finished(c) for n, c in current.modalities.items() if n in stocks}
    cards = {name: current.modalities[name] for name in finished}
    retired = _retired(living)
    ledgers = StandingLedgers(store).list(cards, finished, current.views["count"])
    standing = {path for one in ledgers for path in one.paths}
    present = {
        (name, card.generation): _settled_units(finished[name], folders_of(name, card)[0], settled)
        for name, card in cards.items()
        if card.fitted
    }
    for entry in store.list(QUARANTINE):
        path, (modality, _, rest) = f"{QUARANTINE}/{entry.name}", entry.name.partition("/")
        generation, _, file = rest.partition("/")
        parts = split_ledger_name(file)
        if parts is None:
            continue
        if (modality, generation) not in known:
            yield path, entry, "of a generation that was replaced"
        elif shard_of(parts[0]) in retired:
            yield path, entry, "of a part of the corpus that changed, or is gone"
        elif path not in standing and parts[0] in present.get((modality, generation), ()):
            yield path, entry, "of a unit that was tried again"


def _settled_units(finished: Finished, folder: str, settled: Set[str]) -> set[str]:
    """Names of the units whose shard in the folder is one of the `settled`."""
    revisions = finished.revisions
    return {unit.name for unit in finished.units if f"{folder}/{stem_of(unit, revisions.get(unit, 0))}" in settled}


def _made_tokens(store: Store, living: Sequence[Manifest]) -> Iterator[tuple[str, Entry, str]]:
    """Tokenizers and vocabularies that no living manifest names."""
    cards = [card for one in living for held in (one.modalities, one.pending) for card in held.values()]
    yield from ((path, entry, "made no tokens that are left") for path, entry in unnamed_tokenizers(store, cards))
