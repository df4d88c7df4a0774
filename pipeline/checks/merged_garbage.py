"""What merged shards make superfluous, and which of them and of their lists are superfluous themselves."""

from __future__ import annotations

import io
from collections.abc import Sequence, Set
from dataclasses import dataclass

from ..corpus.units import Unit
from ..dataset.finished import Folder
from ..dataset.layout import MERGES, extension_of, manifest_number, split_stem
from ..dataset.merges import read_merges_at
from ..dataset.shard_meta import BrokenShardError, parts_of
from ..dataset.shards import read_pairs
from ..storage.store import Entry, Store

_HEAD = 2**16


@dataclass(frozen=True)
class MergedLately:
    """Of one folder. lists: the numbers of those that held at some time since; named: the merged shards that one of
    them names; covered: the stems that all the time since were read in merged shards, which are there."""

    lists: frozenset[int] = frozenset()
    named: frozenset[str] = frozenset()
    covered: frozenset[str] = frozenset()

    @classmethod
    def since(cls, store: Store, path: str, folder: Folder, lists: Sequence[Entry], oldest: float) -> MergedLately:
        """lists: below the folder, as a listing of it shows them. oldest: unix seconds."""
        found = ((manifest_number(entry.name.rpartition("/")[2]), entry.modified) for entry in lists)
        numbered = sorted((number, began) for number, began in found if number is not None)
        ends = [began for _, began in numbered[1:]] + [float("inf")]
        living = [number for (number, _), end in zip(numbered, ends, strict=False) if end >= oldest]
        told = [read_merges_at(store, path, number).shards for number in living]
        named = frozenset(merged for shards in told for merged in shards)
        if not living or numbered[0][1] >= oldest:
            return cls(frozenset(living), named)  # for a part of the time the units' own were read
        held = [{s for merged, stems in shards.items() if merged in folder.merged for s in stems} for shards in told]
        return cls(frozenset(living), named, frozenset(set.intersection(*held)))


def lists_by_folder(modality: str, entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The lists of merged shards among the objects of a modality, by the folder that they tell of."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        above, _, below = entry.name.rpartition("/")[0].rpartition("/")
        if below == MERGES and manifest_number(entry.name.rpartition("/")[2]) is not None:
            found.setdefault(f"{modality}/{above}", []).append(entry)
    return found


def is_nobodys(store: Store, path: str, folder: Folder, merged: str, retired: Set[str]) -> bool:
    """Whether all that a merged shard holds, which no list of late names, is there otherwise, or a later revision of
    it, or of a retired shard of the corpus: else a list has been lost. One that can't be read is of no use."""
    extension = extension_of(path)
    try:
        parts = parts_of(read_pairs(io.BufferedReader(store.open(f"{path}/{merged}.{extension}"), _HEAD), extension))
    except BrokenShardError:
        return True
    return all(_is_superfluous(folder, *split_stem(part.stem), retired) for part in parts)


def _is_superfluous(folder: Folder, name: str, revision: int, retired: Set[str]) -> bool:
    unit = Unit.parse(name)
    there = any(unit in units for number, units in folder.units.items() if number >= revision)
    return there or (unit is not None and unit.shard in retired)
