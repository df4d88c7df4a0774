"""What is finished: the units of every modality, from one listing of each prefix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import and_

import numpy as np

from ..corpus.unit_sets import UnitSet, UnitTable, by_shard
from ..corpus.units import Unit
from ..storage.store import Entry, Store
from .cards import ModalityCard
from .folders import WINDOW, Folder, list_folders
from .layout import (
    TOKENIZERS,
    TOKENS,
    VOCABULARIES,
    extension_of,
    label_folder,
    stem_of,
    token_folder,
    tokenizer_folder,
    vocabulary_path,
)
from .manifest import Manifest, read_manifests

_LISTINGS = 8
"""Listings at a time: S3 answers each page slowly."""


@dataclass(frozen=True)
class Finished:
    """What one modality has: its finished units, and when the latest was written (unix seconds).

    revisions: of the units that were tried again, the highest complete one; 0 for all others.
    rate: samples per second over the last ten minutes that something was written in; None when that can't be told.
    """

    units: Set[Unit]
    last: float = 0.0
    rate: float | None = None
    revisions: Mapping[Unit, int] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return UnitSet.of(self.units).samples


@dataclass
class Stock:
    """All that one modality has, by the folder below it: what is current, pending and superseded alike. made_from: by
    folder of labels, those of the tokens that were made from them; None where `take_traced_stock` hasn't asked."""

    modality: str
    folders: dict[str, Folder] = field(default_factory=dict)
    made_from: Mapping[str, Set[str]] | None = None

    def folder(self, path: str) -> Folder:
        """That at a path of the dataset; an empty one where there is none."""
        return self.folders.get(path, Folder())

    def finished(self, card: ModalityCard) -> Finished:
        """The units of which all is there, in one revision, that the card promises."""
        if not card.fitted:
            return Finished(UnitSet.of(()))
        folders = [self.folder(path) for path in folders_of(self.modality, card)]
        complete = {
            number: reduce(and_, (folder.units[number] for folder in folders))
            for number in set.intersection(*(set(folder.units) for folder in folders))
        }
        revisions = {unit: number for number in sorted(complete) if number for unit in complete[number]}
        rate = recent_rate(folders[0].times, folders[0].counts)
        return Finished(UnitSet.union(complete.values()), folders[0].last, rate, revisions)

    def half_done(self, card: ModalityCard, finished: Finished) -> Set[Unit]:
        """The units of which there are labels, and not all that hangs on them: of a first try, or of a second one."""
        units, latest = self.kept_labels(card)
        hanging = latest if card.keeps_tokens and card.keeps_labels else {}
        again = {unit for unit, number in hanging.items() if number > finished.revisions.get(unit, 0)}
        return (units - finished.units) | again

    def kept_labels(self, card: ModalityCard) -> tuple[UnitSet, dict[Unit, int]]:
        """The units whose labels are there, whether or not their tokens are, and revisions as of `Finished`."""
        return self.folder(label_folder(self.modality, card.labels_generation)).latest()

    def tries(self, card: ModalityCard) -> dict[Unit, int]:
        """The latest revisions of units that were tried again: of labels of the card's generation, or of tokens that
        were made from them, by whichever tokenizer."""
        assert self.made_from is not None
        labels = label_folder(self.modality, card.labels_generation)
        tries: dict[Unit, int] = {}
        for path in (labels, *self.made_from.get(labels, ())):
            for unit, number in self.folder(path).tries().items():
                tries[unit] = max(number, tries.get(unit, 0))
        return tries

    def oldest_read(self, cards: Iterable[ModalityCard], settled: Set[str] | None = None) -> dict[tuple[str, str], int]:
        """By folder and unit's name, of units that were tried again: the lowest revision that any of the cards has.

        settled: paths, less their extension, of the only shards that count as read already; None: all do.
        """
        fitted = [(card, self.finished(card)) for card in cards if card.fitted]
        revised = {unit for _, finished in fitted for unit in finished.revisions}
        lowest: dict[tuple[str, str], int] = {}
        for card, finished in fitted:
            folders = folders_of(self.modality, card)
            for unit in revised & finished.units:
                revision = finished.revisions.get(unit, 0)
                read = revision if settled is None or f"{folders[0]}/{stem_of(unit, revision)}" in settled else 0
                for folder in folders:
                    lowest[folder, unit.name] = min(read, lowest.get((folder, unit.name), read))
        return lowest

    def superseded(self, cards: Collection[ModalityCard]) -> int:
        """Bytes of what none of the modality's cards names, of revisions that a later one has taken the place of, and
        of retired shards of the corpus."""
        named = {path for card in cards if card.fitted for path in folders_of(self.modality, card)}
        named |= {label_folder(self.modality, card.labels_generation) for card in cards if not card.fitted}
        oldest = self.oldest_read(cards)
        total = 0
        for path, folder in self.folders.items():
            earlier = (s for (r, unit), s in folder.tried_again.items() if r < oldest.get((path, unit.name), 0))
            total += folder.left_bytes + (sum(earlier) if path in named else folder.bytes)
        return total


def folders_of(modality: str, card: ModalityCard) -> list[str]:
    """Where the shards lie that a card promises. That whose shards are written last comes first."""
    tokens = [token_folder(modality, card.tokens_generation)] if card.keeps_tokens else []
    return tokens + ([label_folder(modality, card.labels_generation)] if card.keeps_labels else [])


def unnamed_tokenizers(store: Store, cards: Collection[ModalityCard]) -> Iterator[tuple[str, Entry]]:
    """The files of tokenizers and vocabularies that none of the cards names, with their paths."""
    fitted = [(card, card.tokens) for card in cards if card.tokens and card.fitted]
    named = {tokenizer_folder(card.tokenizer_digest) for card, _ in fitted}
    named |= {vocabulary_path(t.vocabulary.digest).rpartition("/")[0] for _, t in fitted if t.vocabulary}
    for top in (TOKENIZERS, VOCABULARIES):
        for entry in store.list(top):
            path = f"{top}/{entry.name}"
            if path.rpartition("/")[0] not in named:
                yield path, entry


def superseded(store: Store, manifest: Manifest, stocks: Mapping[str, Stock]) -> int:
    """Bytes of shards, tokenizers and vocabularies that the manifest names no more, and of retired shards of the
    corpus. While tokenizers are being fitted none of them counts: it may be about to be named."""
    cards = [card for held in (manifest.modalities, manifest.pending) for card in held.values()]
    fitted = all(card.fitted for card in cards)
    sizes = [entry.size for _, entry in unnamed_tokenizers(store, cards)] if fitted else []
    return sum(sizes) + sum(stock.superseded(manifest.cards_of(name)) for name, stock in stocks.items())


def take_stock(
    store: Store, modalities: Iterable[str], retired: Collection[str], before: Mapping[str, Finished] | None = None
) -> dict[str, Stock]:
    """What every modality has, by one listing of each prefix, side by side. retired: ids of shards of the corpus.
    before: what somebody still holds of an earlier look, so that what it knows of units isn't kept twice."""
    known = (found.units.table for found in (before or {}).values() if isinstance(found.units, UnitSet) and found.units)
    table, modalities, retired = next(known, UnitTable()), list(modalities), frozenset(retired)
    with ThreadPoolExecutor(_LISTINGS) as pool:
        found = pool.map(lambda name: Stock(name, list_folders(store, name, table, retired)), modalities)
        return dict(zip(modalities, found, strict=True))


def take_traced_stock(
    store: Store,
    modalities: Iterable[str],
    retired: Collection[str],
    manifest: Manifest,
    before: Mapping[str, Finished] | None = None,
) -> dict[str, Stock]:
    """As `take_stock`, with which tokens were made from which labels. Older manifests than this one are read only where
    there are second tries whose tokens it doesn't name."""
    stocks = take_stock(store, modalities, retired, before)
    folders = (one for stock in stocks.values() for one in stock.folders.items())
    tried = {path for path, folder in folders if extension_of(path) == TOKENS and folder.tries()}
    made_from = {name: _made_from(name, [manifest]) for name in stocks}
    if tried.difference(*(paths for found in made_from.values() for paths in found.values())):
        manifests = [*read_manifests(store), manifest]
        made_from = {name: _made_from(name, manifests) for name in stocks}
    return {name: replace(stock, made_from=made_from[name]) for name, stock in stocks.items()}


def _made_from(modality: str, manifests: Iterable[Manifest]) -> Mapping[str, Set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for card in (card for one in manifests for card in one.cards_of(modality)):
        if card.tokens and card.fitted:
            labels = label_folder(modality, card.labels_generation)
            found[labels].add(token_folder(modality, card.tokens_generation))
    return found


def list_finished(store: Store, cards: Mapping[str, ModalityCard], retired: Collection[str]) -> dict[str, Finished]:
    """The finished units of every modality, by one listing of each prefix, side by side. retired: as of take_stock."""
    stocks = take_stock(store, cards, retired)
    return {name: stocks[name].finished(card) for name, card in cards.items()}


def recent_rate(times: np.ndarray, counts: np.ndarray) -> float | None:
    """Samples per second over the ten minutes before the last of `times` (seconds); None where all times are one.

    What the window's first moment brought was made before it, and doesn't count.
    """
    if not len(times):
        return None
    recent = times > times.max() - WINDOW
    first, last = times[recent].min(), times.max()
    return float(counts[recent & (times > first)].sum() / (last - first)) if last > first else None


def is_complete(units: Iterable[Unit]) -> bool:
    """Whether the units of one corpus shard reach from its start to its end without a gap."""
    at: int | None = 0
    for unit in sorted(units, key=lambda unit: unit.start):
        if unit.start != at:
            return False
        at = unit.stop
    return at is None


def complete_shards(units: Iterable[Unit]) -> dict[str, list[Unit]]:
    """The units of those corpus shards that are complete, by the shards' ids."""
    by_shard: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        by_shard[unit.shard].append(unit)
    return {shard: own for shard, own in by_shard.items() if is_complete(own)}


def units_of(finished: Iterable[Finished]) -> UnitSet:
    """All that any modality has."""
    return UnitSet.union(found.units for found in finished)


def empty_shards(units: Iterable[Unit]) -> list[str]:
    """Ids of the corpus shards that are complete, and hold no sample."""
    return sorted(one.shard for one in by_shard(units) if one.complete and not one.samples)
