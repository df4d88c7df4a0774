"""The inventory: everything that lies in an output by name, and what of it the dataset's manifests don't know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..corpus.units import Unit, shard_of
from ..dataset.cards import ModalityCard
from ..dataset.finished import Finished, Stock, folders_of, take_stock
from ..dataset.layout import (
    ATTEMPTS,
    CORPUS,
    DOCTORS,
    FIT,
    MANIFESTS,
    QUARANTINE,
    RETRIES,
    TOKENIZERS,
    VOCABULARIES,
    extension_of,
    manifest_number,
    manifest_path,
    merges_path,
    split_ledger_name,
    stem_of,
)
from ..dataset.manifest import DatasetError, Manifest, manifest_numbers
from ..dataset.merges import merges_numbers, read_merges_at
from ..storage.local import TEMPORARY
from ..storage.store import Store
from .lost import WAY_OUT, folders_named, modalities_there, told, unnamed
from .verify_unit import Fault, Held, Holding

_MANY = 20
"""Findings of one sort about one modality or folder that are listed one by one; the rest is a number."""

GO_ON = "run the recipe again, which goes on from there"
COMPACT = "`tokenloom compact DATASET` goes on from there; else `tokenloom gc` deletes it"
RETRY = "`tokenloom quarantine DATASET --retry` tries that again"
DOCTOR = "`tokenloom gc` deletes it after a day, and the next `tokenloom doctor` after an hour"
GC = "`tokenloom gc` deletes it, where nothing needs it"
NOT_OURS = "move it elsewhere, or delete it"


@dataclass
class Inventory:
    """What lies in the output. places: the folders of shards that count, by path, with the modality and card that name
    them; units: what is in each, with its revision."""

    manifest: Manifest
    stocks: dict[str, Stock]
    places: dict[str, tuple[str, ModalityCard]] = field(default_factory=dict)
    units: dict[str, dict[Unit, int]] = field(default_factory=dict)

    def holders(self) -> dict[Unit, int]:
        """How many shards each unit has."""
        return Counter(unit for units in self.units.values() for unit in units)

    def merged(self) -> tuple[int, int]:
        """How many merged shards count, and their bytes."""
        folders = [self.stocks[name].folder(path) for path, (name, _) in self.places.items()]
        sizes = [one.size for f in folders for merged, one in f.merged.items() if merged in f.merges.shards]
        return len(sizes), sum(sizes)

    def holding(self, unit: Unit) -> Holding:
        shards = []
        for folder, (name, card) in self.places.items():
            if unit in self.units[folder]:
                stem = stem_of(unit, self.units[folder][unit])
                place = self.stocks[name].folder(folder).holder(stem)
                shards.append(Held(name, card, f"{folder}/{place}.{extension_of(folder)}", stem))
        return Holding(unit, tuple(shards))


def superseded_shards(inventory: Inventory, manifests: Sequence[Manifest]) -> Iterator[str]:
    """Shards that only older manifests name, or that a later revision or a merged shard has taken the place of, or of
    which the part of the corpus is retired: until `gc` deletes them somebody may read them, or go back to them."""
    named = {path for one in manifests for name in inventory.stocks for path in folders_named(one, name)}
    for stock in inventory.stocks.values():
        for path, folder in sorted(stock.folders.items()):
            counting = inventory.units.get(path, {})
            if path not in named:
                continue
            read = {folder.holder(stem_of(unit, number)) for unit, number in counting.items()}
            own = (
                stem_of(unit, number)
                for number, unit in folder.shards()
                if unit not in folder.only_merged.get(number, ())
            )
            for stem in (*folder.merged, *own):
                if stem not in read:
                    yield f"{path}/{stem}.{extension_of(path)}"


def broken_merges(store: Store, manifests: Sequence[Manifest]) -> Iterator[Fault]:
    """Lists of merged shards that aren't as they were written: without them nothing can be told of their folders."""
    for name in modalities_there(store, manifests):
        for child in store.children(name):
            folder = f"{name}/{child.rstrip('/')}"
            for number in merges_numbers(store, folder):
                try:
                    read_merges_at(store, folder, number)
                except DatasetError as error:
                    what, _, way_out = str(error).partition(": ")[2].partition(": ")
                    yield Fault("damaged", merges_path(folder, number), what, way_out)


def _unnamed_merges(store: Store, stock: Stock) -> Iterator[Fault]:
    """Merged shards that no list names: they hold what is there by itself, too."""
    for path, folder in sorted(stock.folders.items()):
        numbers = merges_numbers(store, path) if folder.merged else []
        named = {merged for number in numbers for merged in read_merges_at(store, path, number).shards}
        for merged in sorted(folder.merged.keys() - named):
            what = "what a compaction that died had begun, or one that is at work"
            yield Fault("unfinished", f"{path}/{merged}.{extension_of(path)}", what, COMPACT)


def take_inventory(store: Store, manifests: Sequence[Manifest], damaged: bool) -> tuple[Inventory, list[Fault]]:
    """Everything in the output by name; what no manifest names is a fault, what only older ones name is none.

    damaged: whether some of the manifests can't be read: then generations that none names may be theirs.
    """
    faults: list[Fault] = []
    manifest = manifests[-1]
    names = modalities_there(store, manifests)
    inventory = Inventory(manifest, take_stock(store, names, manifest.corpus.retired))
    for name in (*manifest.modalities, *manifest.pending):
        for card in filter(lambda card: card.fitted, manifest.cards_of(name)):
            finished = inventory.stocks[name].finished(card)
            for folder in folders_of(name, card):
                if folder not in inventory.places:  # where what is pending shares it with what readers get
                    inventory.places[folder] = name, card
                    inventory.units[folder] = _revisions(inventory.stocks[name], card, finished, folder)
    if not damaged and (paths := unnamed(store, inventory.stocks, manifests)):
        gap = manifest_path(max(manifest_numbers(store)) + 1)
        faults.append(Fault("missing", gap, told(store, paths), WAY_OUT))
    for child in store.children():
        folder = child.rstrip("/")
        if folder in names:
            faults += few(_foreign_names(inventory.stocks[folder]), folder)
            faults += few(_unnamed_merges(store, inventory.stocks[folder]), folder)
        elif not child.endswith("/"):
            faults.append(foreign(child))
        elif folder not in (CORPUS, TOKENIZERS, VOCABULARIES, QUARANTINE) and not child.startswith(TEMPORARY):
            found = (entry.name for entry in store.list(folder))
            strange = (file for file in found if folder != MANIFESTS or manifest_number(file) is None)
            faults += few((foreign(f"{folder}/{file}") for file in strange), folder)
    if not damaged:
        faults += few(_foreign_ledgers(store, manifests, inventory), QUARANTINE)
    faults += few((foreign(path) for path in _temporaries(store, "", 4)), "temporary files")
    return inventory, faults


def _revisions(stock: Stock, card: ModalityCard, finished: Finished, path: str) -> dict[Unit, int]:
    """The units with a shard in a folder that counts: of the revision that is complete, else of the highest of labels,
    from which a run goes on."""
    folder, (_, kept) = stock.folder(path), stock.kept_labels(card)
    found = {unit: (finished.revisions if unit in finished.units else kept).get(unit, 0) for unit in folder.latest()[0]}
    return {unit: revision for unit, revision in found.items() if unit in folder.units.get(revision, ())}


def _foreign_names(stock: Stock) -> Iterator[Fault]:
    for path, folder in sorted(stock.folders.items()):
        yield from (foreign(f"{path}/{name}") for name in folder.foreign)


def _foreign_ledgers(store: Store, manifests: Sequence[Manifest], inventory: Inventory) -> Iterator[Fault]:
    """Ledgers of what no manifest names, or of units that no modality has, unless their part of the corpus is retired;
    which ones count, the shards tell."""
    folders = [folder for stock in inventory.stocks.values() for folder in stock.folders.values()]
    units = {unit for folder in folders for _, unit in folder.shards()}
    retired = frozenset(manifests[-1].corpus.retired)
    cards = [(name, card) for one in manifests for name in inventory.stocks for card in one.cards_of(name)]
    known = {(name, card.labels_generation) for name, card in cards}
    known |= {(name, card.tokens_generation) for name, card in cards if card.tokens and card.fitted}
    known |= {(CORPUS, card.corpus_generation) for _, card in cards}
    unit_names = {unit.name for unit in units}
    for entry in store.list(QUARANTINE):
        modality, _, rest = entry.name.partition("/")
        generation, _, file = rest.partition("/")
        parts = split_ledger_name(file)
        if parts is None:
            yield foreign(f"{QUARANTINE}/{entry.name}")
        elif (modality, generation) not in known:
            yield Fault("foreign", f"{QUARANTINE}/{entry.name}", "no manifest names its generation", GC)
        elif parts[0] not in unit_names and shard_of(parts[0]) not in retired:
            what, way_out = "no modality has its unit", f"{GO_ON}; if it is still here then, delete it"
            yield Fault("foreign", f"{QUARANTINE}/{entry.name}", what, way_out)


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


def foreign(path: str) -> Fault:
    top = path.split("/")[0]
    if top.startswith(DOCTORS):
        return Fault("foreign", path, "what a `tokenloom doctor` left that was killed, or could delete nothing", DOCTOR)
    if path.rsplit("/", 1)[-1].startswith(TEMPORARY):
        return Fault("foreign", path, "what a writer that died left behind, or one that is at work", GO_ON)
    if top == RETRIES:
        return Fault("unfinished", path, "what a retry that died had begun, or one that is at work", RETRY)
    if top in (FIT, ATTEMPTS):
        return Fault("unfinished", path, "what a run needs until it ends", GO_ON)
    if top in (CORPUS, TOKENIZERS, VOCABULARIES):
        what = "no manifest names it: left of a run that died, or of one that is at work"
        return Fault("foreign", path, what, GC)
    return Fault("foreign", path, "no part of the dataset", NOT_OURS)


def few(faults: Iterable[Fault], where: str) -> Iterator[Fault]:
    """The first faults of many, and the number of the others."""
    more, last = 0, None
    for number, fault in enumerate(faults):
        if number < _MANY:
            yield fault
        else:
            more, last = more + 1, fault
    if last is not None:
        yield Fault(last.problem, where, f"{more:,} more like these", last.way_out)
