"""Merges: which shards of a folder hold several units, as `tokenloom compact` wrote them, and where a unit lies.

A merged shard is another place of what its units' own shards hold, revision by revision. It counts once a list below
the folder names it, that of the highest number; who loses the race for a number reads the winner's and takes the next.
What one list holds the later ones hold, too, for as long as somebody reads it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from ..storage.store import Store
from .layout import MERGES, extension_of, manifest_number, merges_path
from .manifest import DatasetError

T = TypeVar("T")


@dataclass(frozen=True)
class Merges:
    """The merged shards of one folder that count, by stem: the stems of the units in each, in order. Of two that hold
    the same, the first is read."""

    shards: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def holder(self, stem: str) -> str | None:
        """The stem of the merged shard that holds the unit's of this stem; None where none does."""
        return self._holders.get(stem)

    @cached_property
    def _holders(self) -> dict[str, str]:
        holders: dict[str, str] = {}
        for merged, stems in self.shards.items():
            for stem in stems:
                holders.setdefault(stem, merged)
        return holders

    def to_bytes(self) -> bytes:
        shards = {merged: list(stems) for merged, stems in self.shards.items()}
        return (json.dumps({"shards": shards, "checksum": _checksum(shards)}, indent=0) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Merges:
        """Raises DatasetError for bytes that `to_bytes` didn't give."""
        try:
            raw = json.loads(data)
            # Units have the same names in all modalities: one string for all.
            merges = cls({name: tuple(map(sys.intern, stems)) for name, stems in raw["shards"].items()})
            if raw["checksum"] == _checksum(raw["shards"]) and merges.to_bytes() == data:
                return merges
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise DatasetError(
            f"{source}: its bytes aren't those that were written: put back a copy of it, or delete it and run the "
            f"recipe again, which makes anew what only this list told of"
        )


def merges_numbers(store: Store, folder: str) -> list[int]:
    """The numbers of the lists of a folder, in order."""
    numbers = (manifest_number(entry.name) for entry in store.list(f"{folder}/{MERGES}", recursive=False))
    return sorted(number for number in numbers if number is not None)


def read_merges_at(store: Store, folder: str, number: int) -> Merges:
    path = merges_path(folder, number)
    return Merges.from_bytes(store.read(path), f"{store.url}/{path}")


def read_merges(store: Store, folder: str) -> Merges:
    """What holds now. Raises DatasetError for a list that can't be read."""
    numbers = merges_numbers(store, folder)
    return read_merges_at(store, folder, numbers[-1]) if numbers else Merges()


def publish_merges(store: Store, folder: str, change: Callable[[Merges], Merges]) -> None:
    """Writes the list that `change` makes of the present one, unless they are equal; called again with the winner's
    where somebody else was quicker."""
    while True:
        numbers = merges_numbers(store, folder)
        now = read_merges_at(store, folder, numbers[-1]) if numbers else Merges()
        new = change(now)
        if new == now:
            return
        path, data = merges_path(folder, numbers[-1] + 1 if numbers else 1), new.to_bytes()
        if store.create(path, data):
            return


class Places:
    """Where the units' rows lie: in shards of their own, or in merged ones. Looked up once for each folder, and once
    more where a shard has gone meanwhile. May be pickled."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._merges: dict[str, Merges] = {}

    def path(self, folder: str, stem: str) -> str:
        """Of the shard that holds what the unit's own of this stem does, or did."""
        return f"{folder}/{self._of(folder).holder(stem) or stem}.{extension_of(folder)}"

    def _of(self, folder: str) -> Merges:
        merges = self._merges.get(folder)
        if merges is None:
            merges = self._merges[folder] = read_merges(self._store, folder)
        return merges

    def files(self, folder: str, stems: Collection[str]) -> list[str]:
        """The paths of the shards that hold units, each once. Raises DatasetError where one holds others, too."""
        paths, wanted = dict.fromkeys(self.path(folder, stem) for stem in stems), set(stems)
        for merged, held in self._of(folder).shards.items() if paths else ():
            path = f"{folder}/{merged}.{extension_of(folder)}"
            if path in paths and not wanted.issuperset(held):
                raise DatasetError(
                    f"{self._store.url}/{path}: it also holds units that were made anew since, or whose part of the "
                    f"corpus changed: `tokenloom compact {self._store.url}` merges the others again"
                )
        return list(paths)

    def read(self, folder: str, stem: str, read: Callable[[str], T]) -> T:
        """What `read` makes of the path; of the one where it is now, where it was merged and deleted meanwhile."""
        path = self.path(folder, stem)
        try:
            return read(path)
        except FileNotFoundError:
            own = f"{folder}/{stem}.{extension_of(folder)}"
            self._merges.pop(folder, None)  # which another thread may have done
            now = self.path(folder, stem)
            other = now if now != path else own
            if other == path:
                raise
        return read(other)


def _checksum(shards: Mapping[str, list[str]]) -> str:
    return hashlib.sha256(json.dumps(shards).encode()).hexdigest()
