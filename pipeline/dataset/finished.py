"""What is finished: the units of every modality, from one listing of each prefix."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from ..corpus.units import Unit, UnitNames
from ..storage.store import Entry, Store
from .cards import ModalityCard
from .layout import (
    LABELS,
    MERGES,
    TOKENIZERS,
    TOKENS,
    VOCABULARIES,
    extension_of,
    is_merged,
    label_folder,
    manifest_number,
    split_stem,
    stem_of,
    token_folder,
    tokenizer_folder,
    vocabulary_path,
)
from .manifest import Manifest, read_manifests
from .merges import Merges, read_merges_at

_LISTINGS = 4
"""Listings at a time: S3 answers each page slowly, and each listing takes memory."""
_WINDOW = 600.0


@dataclass(frozen=True)
class Finished:
    """What one modality has: its finished units, and when the latest was written (unix seconds).

    revisions: of the units that were tried again, the highest complete one; 0 for all others.
    rate: samples per second over the last ten minutes that something was written in; None when that can't be told.
    """

    units: frozenset[Unit]
    last: float = 0.0
    rate: float | None = None
    revisions: Mapping[Unit, int] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return sum(unit.count for unit in self.units)


@dataclass
class Folder:
    """One generation of one modality's labels or tokens. units: by revision; retired: likewise, those of retired shards
    of the corpus, which count no more. bytes: of their shards; left_bytes: of those that count no more, since their
    part of the corpus is retired, or a merged shard holds the same; tried_again: by revision and unit, those of `bytes`
    that are of units with several revisions. merged: the merged shards that lie there, by stem; merges: which of them
    count; only_merged: what they alone hold. foreign: names that are no shard's."""

    units: dict[int, set[Unit]] = field(default_factory=lambda: defaultdict(set))
    retired: dict[int, set[Unit]] = field(default_factory=lambda: defaultdict(set))
    bytes: int = 0
    left_bytes: int = 0
    tried_again: dict[tuple[int, Unit], int] = field(default_factory=dict)
    merged: dict[str, Entry] = field(default_factory=dict)
    merges: Merges = field(default_factory=Merges)
    only_merged: set[tuple[int, Unit]] = field(default_factory=set)
    times: array = field(default_factory=lambda: array("d"))
    counts: array = field(default_factory=lambda: array("L"))
    foreign: list[str] = field(default_factory=list)

    def shards(self) -> Iterator[tuple[int, Unit]]:
        """All that lies there, as revision and unit, of retired shards of the corpus, too."""
        for number, units in sorted((*self.units.items(), *self.retired.items()), key=lambda item: item[0]):
            yield from ((number, unit) for unit in sorted(units))

    def holder(self, stem: str) -> str:
        """The stem of the shard in which a unit is read: its own, or that of a merged one that is there."""
        merged = self.merges.holder(stem)
        return merged if merged in self.merged else stem

    def add(self, unit: Unit, revision: int, entry: Entry, retired: Set[str], again: bool) -> None:
        """A unit's own shard. again: whether the unit has several revisions."""
        counts_no_more = unit.shard in retired
        (self.retired if counts_no_more else self.units)[revision].add(unit)
        if counts_no_more or (self.merged and is_merged(self.holder(stem_of(unit, revision)))):
            self.left_bytes += entry.size
        else:
            self.bytes += entry.size
            if again:
                self.tried_again[revision, unit] = entry.size
        if not counts_no_more:
            self.times.append(entry.modified)
            self.counts.append(unit.count)

    def add_merged(self, names: UnitNames, retired: Set[str]) -> None:
        """What merged shards hold, once the units' own shards are known. It was made before it was merged: at which
        speed, nobody knows."""
        for merged, entry in self.merged.items():
            if merged not in self.merges.shards:
                self.left_bytes += entry.size
                continue
            self.bytes += entry.size
            for stem in self.merges.shards[merged]:
                name, revision = split_stem(stem)
                unit = names[name]
                if unit and not any(unit in units.get(revision, ()) for units in (self.units, self.retired)):
                    (self.retired if unit.shard in retired else self.units)[revision].add(unit)
                    self.only_merged.add((revision, unit))

    def last(self) -> float:
        """When the latest of its shards was written; 0 where there is none that counts."""
        merged = (entry.modified for stem, entry in self.merged.items() if stem in self.merges.shards)
        return max(chain(self.times, merged), default=0.0)

    def latest(self) -> tuple[frozenset[Unit], dict[Unit, int]]:
        """Its units, and the highest revisions of those that were tried again."""
        return frozenset().union(*self.units.values()), self.tries()

    def tries(self) -> dict[Unit, int]:
        """The highest revisions of the units that were tried again."""
        return {unit: number for number in sorted(self.units) if number for unit in self.units[number]}


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
            return Finished(frozenset())
        folders = [self.folder(path) for path in folders_of(self.modality, card)]
        complete: dict[int, set[Unit]] = {
            number: set.intersection(*(folder.units.get(number, set()) for folder in folders))
            for number in set.intersection(*(set(folder.units) for folder in folders))
        }
        units = frozenset().union(*complete.values())
        revisions = {unit: number for number in sorted(complete) if number for unit in complete[number]}
        times, counts = np.array(folders[0].times), np.array(folders[0].counts)
        return Finished(units, folders[0].last(), recent_rate(times, counts), revisions)

    def half_done(self, card: ModalityCard, finished: Finished) -> frozenset[Unit]:
        """The units of which there are labels, and not all that hangs on them: of a first try, or of a second one."""
        units, latest = self.kept_labels(card)
        hanging = latest if card.keeps_tokens and card.keeps_labels else {}
        again = (unit for unit, number in hanging.items() if number > finished.revisions.get(unit, 0))
        return (units - finished.units).union(again)

    def kept_labels(self, card: ModalityCard) -> tuple[frozenset[Unit], dict[Unit, int]]:
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


def take_stock(store: Store, modalities: Iterable[str], retired: Collection[str]) -> dict[str, Stock]:
    """What every modality has, by one listing of each prefix, side by side. retired: ids of shards of the corpus."""
    names, modalities, retired = UnitNames(), list(modalities), frozenset(retired)
    with ThreadPoolExecutor(_LISTINGS) as pool:
        stocks = pool.map(lambda name: _stock(store, name, names, retired), modalities)
        return dict(zip(modalities, stocks, strict=True))


def take_traced_stock(
    store: Store, modalities: Iterable[str], retired: Collection[str], manifest: Manifest
) -> dict[str, Stock]:
    """As `take_stock`, with which tokens were made from which labels. Older manifests than this one are read only where
    there are second tries whose tokens it doesn't name."""
    stocks = take_stock(store, modalities, retired)
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


def _stock(store: Store, modality: str, names: UnitNames, retired: Set[str]) -> Stock:
    stock, entries = Stock(modality), store.list(modality)
    told = _merged_first(store, stock, entries)
    again = _tried_again(entries)
    for entry in entries:
        if entry.name in told:
            continue
        path, file = _split(f"{modality}/{entry.name}")
        folder = stock.folders.get(path) or stock.folders.setdefault(path, Folder())
        name, revision = split_stem(file.rpartition(".")[0])
        unit = names[name]
        if unit is not None and _is_shard(path, file):
            folder.add(unit, revision, entry, retired, name in again)
        else:
            folder.foreign.append(file)
    for folder in stock.folders.values():
        folder.add_merged(names, retired)
    return stock


def _merged_first(store: Store, stock: Stock, entries: Sequence[Entry]) -> set[str]:
    """Notes merged shards and which of them count, by which it is known whether units' own shards do; the names of the
    entries that told of it."""
    told: set[str] = set()
    lists: dict[str, list[int]] = defaultdict(list)
    for entry in entries:
        if "/merge" not in entry.name:
            continue
        path, file = _split(f"{stock.modality}/{entry.name}")
        number, above = manifest_number(file), path.removesuffix(f"/{MERGES}")
        if number is not None and above != path:
            lists[above].append(number)
        elif is_merged(file) and _is_shard(path, file):
            stock.folders.setdefault(path, Folder()).merged[file.rpartition(".")[0]] = entry
        else:
            continue
        told.add(entry.name)
    for path, numbers in lists.items():
        stock.folders.setdefault(path, Folder()).merges = read_merges_at(store, path, max(numbers))
    return told


def _tried_again(entries: Iterable[Entry]) -> set[str]:
    """The names of the units of which there are several revisions."""
    stems = (entry.name.rpartition("/")[2].rpartition(".")[0] for entry in entries if "-r" in entry.name)
    return {name for name, revision in map(split_stem, stems) if revision}


def _split(path: str) -> tuple[str, str]:
    folder, _, file = path.rpartition("/")
    return folder, file


def _is_shard(path: str, file: str) -> bool:
    """Whether a file named so may lie at that path below the root."""
    _, _, folder = path.partition("/")
    return "/" not in folder and folder.startswith(_KINDS.get(file.rpartition(".")[2], "/"))


_KINDS = {LABELS: "labels-", TOKENS: "tokens-"}
"""How the names of folders begin in which there are files with these extensions."""


def recent_rate(times: np.ndarray, counts: np.ndarray) -> float | None:
    """Samples per second over the ten minutes before the last of `times` (seconds); None where all times are one.

    What the window's first moment brought was made before it, and doesn't count.
    """
    if not len(times):
        return None
    recent = times > times.max() - _WINDOW
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


def empty_shards(units: Iterable[Unit]) -> list[str]:
    """Ids of the corpus shards that are complete, and hold no sample."""
    return sorted(shard for shard, own in complete_shards(units).items() if not any(unit.count for unit in own))
