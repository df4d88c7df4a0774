"""Attempts: counting, in the output, how often a unit was begun and not finished.

A sample that kills its process (a crash in a native library, the kernel's out-of-memory killer) leaves no exception
behind, and Ray would try its unit again for ever. So a stage leaves a mark before it begins a unit and removes it
after. A unit with several marks is taken apart first: its samples go one by one, step by step, through a process that
may die, and those that kill it are known by name.
"""

from __future__ import annotations

import uuid

from ..corpus.units import Unit
from ..dataset.layout import attempts_folder
from ..storage.store import Store

SUSPICIOUS = 3
"""Attempts after which a unit is taken apart. Machines die for other reasons, too; a search that finds nothing only
costs time."""


class Attempts:
    """The marks of one unit in one stage."""

    def __init__(self, store: Store, unit: Unit, stage: str) -> None:
        self._store = store
        self._folder = attempts_folder(unit, stage)
        self._marks: list[str] = []

    def begin(self) -> int:
        """Leaves a mark; how many there were before."""
        before = [entry.name for entry in self._store.list(self._folder)]
        self._marks = [*before, uuid.uuid4().hex]
        self._store.create(f"{self._folder}/{self._marks[-1]}", b"")
        return len(before)

    def end(self) -> None:
        """Removes the marks that are known: its own, and those that there were before."""
        for name in self._marks:
            self._store.delete(f"{self._folder}/{name}")
