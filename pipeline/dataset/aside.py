"""Labels that were made for the fitting sample, and are put aside so that they needn't be made again.

A unit's revision is here how often all that its labels are made from had been tried again, themselves among it: what
was made before a retry doesn't count after it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..corpus.units import Unit
from ..storage.store import Store
from .cards import ModalityCard
from .finished import Folder, Stock, take_stock
from .layout import ASIDE, QUARANTINE, label_folder, label_path, ledger_folder, split_ledger_name
from .ledger import Failure
from .manifest import DatasetError
from .reader import ColumnReader


@dataclass(frozen=True)
class GivenLabels:
    """What was put aside of one unit: encoded labels by modality, and why some are missing. lost: modalities of which
    it isn't there any more."""

    labels: dict[str, list[bytes | None]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class LabelsAside:
    """Labels below ASIDE of an output, those of `units` by modality. store: that folder; None where nothing is.
    tries: their revisions, where they aren't 0."""

    store: Store | None = None
    cards: Mapping[str, ModalityCard] = field(default_factory=dict)
    views: int = 1
    units: Mapping[str, frozenset[Unit]] = field(default_factory=dict)
    tries: Mapping[str, Mapping[Unit, int]] = field(default_factory=dict)

    @classmethod
    def below(
        cls, output: Store, cards: Mapping[str, ModalityCard], views: int, tries: Mapping[str, Mapping[Unit, int]]
    ) -> LabelsAside:
        """What there is of the generations that the cards have, in the revisions that would be made now."""
        store = output.below(ASIDE)
        present = {child.rstrip("/") for child in store.children()}
        stocks = take_stock(store, [name for name in cards if name in present], ())
        units = {
            name: frozenset(u for n, u in _labels(stock, cards[name]).shards() if n == tries[name].get(u, 0))
            for name, stock in stocks.items()
        }
        return cls(store, cards, views, units, {n: {u: tries[n][u] for u in units[n] & tries[n].keys()} for n in units})

    def less(self, kept: Mapping[str, tuple[Set[Unit], Any]]) -> LabelsAside:
        """Without the units of which the dataset has labels, by modality."""
        return replace(self, units={name: units - kept[name][0] for name, units in self.units.items()})

    def read(self, unit: Unit, wanted: Collection[str]) -> GivenLabels:
        """What is there of a unit. Who is done with it removes it, others' too: they make it again."""
        given = GivenLabels()
        for name in wanted:
            if self.store is None or unit not in self.units.get(name, ()):
                continue
            try:
                column = self._columns.labels(unit, name)
                failures = self._columns.failures(unit, column)
            except (FileNotFoundError, DatasetError):
                given.lost.add(name)
            else:
                given.labels[name] = column.values
                given.failures.extend(failures)
        return given

    @cached_property
    def _columns(self) -> ColumnReader:
        assert self.store is not None
        return ColumnReader(self.store, self.cards, self.views, self.tries)


NOTHING_ASIDE = LabelsAside()


def _labels(stock: Stock, card: ModalityCard) -> Folder:
    return stock.folder(label_folder(stock.modality, card.labels_generation))


def remove_failed(output: Store, cards: Mapping[str, ModalityCard]) -> None:
    """Deletes what was put aside of units of which labels failed: of the generations that the cards have."""
    store = output.below(ASIDE)
    for name, card in cards.items():
        ledgers = ledger_folder(name, card.labels_generation)
        for entry in store.list(ledgers):
            parts = split_ledger_name(entry.name)
            unit = Unit.parse(parts[0]) if parts else None
            if parts and unit:
                store.delete(label_path(name, card.labels_generation, unit, parts[1]))
                store.delete(f"{ledgers}/{entry.name}")


def remove_aside(output: Store) -> None:
    """Deletes all that was put aside: labels before the ledgers that they refer to."""
    found = (entry.name for entry in output.list(ASIDE))
    for name in sorted(found, key=lambda name: name.startswith(f"{QUARANTINE}/")):
        output.delete(f"{ASIDE}/{name}")
