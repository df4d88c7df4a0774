"""The folders of one modality, folded from a listing page by page: of a page nothing is kept but what it comes to."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field

import numpy as np

from ..corpus.unit_sets import UnitSet, UnitTable
from ..corpus.units import Unit
from ..storage.store import Entry, Store
from .layout import LABELS, MERGES, TOKENS, is_merged, manifest_number, split_stem, stem_of
from .merges import Merges, read_merges_at

WINDOW = 600.0
"""Seconds before the last shard was written, of which the speed is told."""

_KINDS = {"labels-": LABELS, "tokens-": TOKENS}
"""The extension of the shards in folders whose names begin so."""


@dataclass
class Folder:
    """One generation of one modality's labels or tokens. units: by revision; retired: likewise, those of retired shards
    of the corpus, which count no more. bytes: of their shards; left_bytes: of those that count no more, since their
    part of the corpus is retired, or a merged shard holds the same; tried_again: by revision and unit, those of `bytes`
    that are of units with several revisions. merged: the merged shards that lie there, by stem; merges: which of them
    count; only_merged: what they alone hold, by revision. times, counts: of the shards of units that were written last,
    within WINDOW; last: when the latest was, 0 where there is none that counts. foreign: names that are no shard's."""

    units: Mapping[int, UnitSet] = field(default_factory=dict)
    retired: Mapping[int, UnitSet] = field(default_factory=dict)
    bytes: int = 0
    left_bytes: int = 0
    tried_again: dict[tuple[int, Unit], int] = field(default_factory=dict)
    merged: dict[str, Entry] = field(default_factory=dict)
    merges: Merges = field(default_factory=Merges)
    only_merged: Mapping[int, UnitSet] = field(default_factory=dict)
    times: np.ndarray = field(default_factory=lambda: np.zeros(0))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    last: float = 0.0
    foreign: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether it has no shard of any unit."""
        return not any(map(len, (*self.units.values(), *self.retired.values())))

    def shards(self) -> Iterator[tuple[int, Unit]]:
        """All that lies there, as revision and unit, of retired shards of the corpus, too."""
        for number, units in sorted((*self.units.items(), *self.retired.items()), key=lambda item: item[0]):
            yield from ((number, unit) for unit in units.in_order())

    def shard_ids(self) -> set[str]:
        """Of the corpus shards that it has units of."""
        return {unit.shard for _, unit in self.shards()}

    def holder(self, stem: str) -> str:
        """The stem of the shard in which a unit is read: its own, or that of a merged one that is there."""
        merged = self.merges.holder(stem)
        return merged if merged in self.merged else stem

    def latest(self) -> tuple[UnitSet, dict[Unit, int]]:
        """Its units, and the highest revisions of those that were tried again."""
        return UnitSet.union(self.units.values()), self.tries()

    def tries(self) -> dict[Unit, int]:
        """The highest revisions of the units that were tried again."""
        return {unit: number for number in sorted(self.units) if number for unit in self.units[number]}


class FolderListing:
    """What a listing has told so far of one folder: a row for each unit's own shard. path: in the dataset."""

    def __init__(self, path: str) -> None:
        name = path.partition("/")[2]
        self.path = path
        self.extension = next((one for begin, one in _KINDS.items() if name.startswith(begin) and "/" not in name), "")
        """Of its shards; "" where it is no place for any."""
        self.merged: dict[str, Entry] = {}
        self.lists: list[int] = []
        self.foreign: list[str] = []
        self._numbers, self._revisions = array("i"), array("i")
        self._sizes, self._times = array("q"), array("d")

    def add(self, number: int, revision: int, entry: Entry) -> None:
        """A unit's own shard."""
        self._numbers.append(number)
        self._revisions.append(revision)
        self._sizes.append(entry.size)
        self._times.append(entry.modified)

    def tried_again(self) -> set[int]:
        """The numbers of the units of which there is more than a first try."""
        numbers, revisions = np.asarray(self._numbers), np.asarray(self._revisions)
        return set(numbers[revisions > 0].tolist())

    def fold(self, table: UnitTable, retired: Set[str], again: Set[int], merges: Merges) -> Folder:
        """What that comes to. retired: ids of shards of the corpus; again: units with several revisions, wherever."""
        # Not copied: several modalities are folded at once, of a million units each.
        numbers, revisions = np.asarray(self._numbers), np.asarray(self._revisions)
        sizes, times, columns = np.asarray(self._sizes), np.asarray(self._times), table.columns
        counts_no_more = _of_shards(table, retired).flags[numbers]
        folder = Folder(
            units=_by_revision(table, numbers[~counts_no_more], revisions[~counts_no_more]),
            retired=_by_revision(table, numbers[counts_no_more], revisions[counts_no_more]),
            merged=self.merged,
            merges=merges,
            foreign=self.foreign,
        )
        left = counts_no_more | self._is_covered(folder, table, numbers, revisions)
        folder.bytes, folder.left_bytes = int(sizes.sum(where=~left)), int(sizes.sum(where=left))
        for row in np.flatnonzero(np.isin(numbers, list(again)) & ~left).tolist() if again else ():
            (unit,) = table.units(numbers[row : row + 1])
            folder.tried_again[int(revisions[row]), unit] = int(sizes[row])
        self._add_merged(folder, table, retired)
        times, numbers = times[~counts_no_more], numbers[~counts_no_more]
        recent = times > times.max(initial=0.0) - WINDOW
        folder.times, folder.counts = times[recent], columns.count[numbers[recent]]
        merged = [entry.modified for stem, entry in self.merged.items() if stem in merges.shards]
        folder.last = max([*merged, times.max(initial=0.0)])
        return folder

    def _is_covered(self, folder: Folder, table: UnitTable, numbers: np.ndarray, revisions: np.ndarray) -> np.ndarray:
        """Which of the units' own shards a merged one stands for."""
        if not self.merged:
            return np.zeros(len(numbers), bool)
        own = zip(table.units(numbers), revisions.tolist(), strict=True)
        return np.array([is_merged(folder.holder(stem_of(unit, revision))) for unit, revision in own], bool)

    def _add_merged(self, folder: Folder, table: UnitTable, retired: Set[str]) -> None:
        """What merged shards alone hold. It was made before it was merged: at which speed, nobody knows."""
        told: list[tuple[int, int]] = []
        for merged, entry in self.merged.items():
            if merged not in folder.merges.shards:
                folder.left_bytes += entry.size
                continue
            folder.bytes += entry.size
            stems = map(split_stem, folder.merges.shards[merged])
            told += [(number, revision) for name, revision in stems if (number := table.number(name)) is not None]
        if not told:
            return
        numbers, revisions = np.array(told, np.int64).T
        folder.only_merged = {
            number: units - folder.units.get(number, ()) - folder.retired.get(number, ())
            for number, units in _by_revision(table, numbers, revisions).items()
        }
        gone = _of_shards(table, retired)
        folder.units = _joined(folder.units, {n: units - gone for n, units in folder.only_merged.items()})
        folder.retired = _joined(folder.retired, {n: units & gone for n, units in folder.only_merged.items()})


def list_folders(store: Store, modality: str, table: UnitTable, retired: Set[str]) -> dict[str, Folder]:
    """The folders below a modality's by their paths, by one listing. retired: ids of shards of the corpus. Raises
    DatasetError for a list of merged shards that can't be read."""
    found: dict[str, FolderListing] = {}

    def listing(path: str) -> FolderListing:
        return found.get(path) or found.setdefault(path, FolderListing(path))

    known = table.numbers
    for page in store.pages(modality):
        for entry in page:
            below, _, file = entry.name.rpartition("/")
            path = f"{modality}/{below}" if below else modality
            stem, _, extension = file.rpartition(".")
            folder = found.get(path)
            if folder and extension == folder.extension and (number := known.get(stem)) is not None:
                folder.add(number, 0, entry)
            elif (number := manifest_number(file)) is not None and path.endswith(f"/{MERGES}"):
                listing(path.removesuffix(f"/{MERGES}")).lists.append(number)
            else:
                _add(folder or listing(path), table, entry, file)
    again = set[int]().union(*(folder.tried_again() for folder in found.values()))
    merges = {path: read_merges_at(store, path, max(one.lists)) for path, one in found.items() if one.lists}
    return {path: one.fold(table, retired, again, merges.get(path, Merges())) for path, one in found.items()}


def _add(folder: FolderListing, table: UnitTable, entry: Entry, file: str) -> None:
    """A file that isn't the first try of a unit that is known already."""
    stem, _, extension = file.rpartition(".")
    if extension != folder.extension:
        folder.foreign.append(file)
    elif is_merged(file):
        folder.merged[stem] = entry
    else:
        name, revision = split_stem(stem)
        number = table.number(name)
        if number is None:
            folder.foreign.append(file)
        else:
            folder.add(number, revision, entry)


def _of_shards(table: UnitTable, shards: Set[str]) -> UnitSet:
    """All the units of these shards of the corpus."""
    columns = table.columns
    return UnitSet(table, np.array([shard in shards for shard in table.shards], bool)[columns.shard])


def _by_revision(table: UnitTable, numbers: np.ndarray, revisions: np.ndarray) -> dict[int, UnitSet]:
    return {int(n): UnitSet.numbered(table, numbers[revisions == n]) for n in np.unique(revisions)}


def _joined(one: Mapping[int, UnitSet], other: Mapping[int, UnitSet]) -> dict[int, UnitSet]:
    joined = {number: one.get(number, units) | units for number, units in other.items() if units}
    return {**one, **joined}
