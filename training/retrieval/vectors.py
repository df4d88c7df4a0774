"""The vectors of a dataset: one for each sample, unit by unit, from its labels or from what its tokens decode to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from ...labelers.contract.kinds import Vector
from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.finished import units_of
from ...pipeline.dataset.manifest import DatasetError, Manifest
from ...pipeline.dataset.reader import Column, DatasetReader
from ...pipeline.dataset.tokenizers import load_tokenizer
from ...pipeline.storage.read_ahead import in_order
from ...pipeline.storage.store import Store
from .nearest import Part


class DatasetVectors:
    """Of view 0 of each sample, the centre crop. source: what they are read from. lacking: samples so far that have no
    vector. unmade: samples of units that have none of the modality yet.

    Raises DatasetError where the dataset has no such modality, or neither its labels nor its tokens.
    """

    def __init__(self, store: Store, manifest: Manifest, name: str) -> None:
        self.store, self.name, self.card = store, name, vector_card(store, manifest, name)
        self.source: Literal["labels", "tokens"] = "labels" if self.card.keeps_labels else "tokens"
        self.lacking = 0
        self._reader = DatasetReader(store, manifest)
        self.finished = self._reader.listed
        self.units: list[Unit] = self._reader.units([name])
        self.unmade = units_of(self.finished.values()).samples - self.samples
        self._tokenizer = load_tokenizer(store, name, self.card) if self.source == "tokens" else None

    @property
    def samples(self) -> int:
        return sum(unit.count for unit in self.units)

    def parts(self, watch: Callable[[int, int], None] = lambda done, total: None) -> Iterator[Part]:
        """Unit by unit. watch: told how many samples are through, and of how many.

        Raises DatasetError for a unit that can't be read, StorageError.
        """
        columns, labels, done = self._reader.columns_in_order([self.name]), self.source == "labels", 0
        read = in_order(lambda unit: self._reader.column(unit, self.name, labels, columns), self.units)
        self.lacking = 0
        for place, column in enumerate(read):
            yield self._part(place, column)
            done += self.units[place].count
            watch(done, self.samples)

    def _part(self, place: int, column: Column) -> Part:
        values = column.values[:: column.per_sample]
        rows = [row for row, value in enumerate(values) if value is not None]
        self.lacking += len(values) - len(rows)
        found = [values[row] for row in rows]
        vectors = self._tokenizer.decode(found) if self._tokenizer else found
        empty = np.zeros((0, int(self.card.kind["dim"])), np.float32)
        return Part(place, [column.keys[row] for row in rows], rows, np.stack(vectors) if rows else empty)


def vector_card(store: Store, manifest: Manifest, name: str) -> ModalityCard:
    """Raises DatasetError where the dataset has no such modality, or nothing to tell its vectors by."""
    card = manifest.modalities.get(name)
    if card is None or card.kind["kind"] != Vector.name:
        vectors = [one for one, other in manifest.modalities.items() if other.kind["kind"] == Vector.name]
        what = f"{name} isn't a vector" if card else f"has no {name}"
        raise DatasetError(f"{store.url}: {what}; its vectors are {', '.join(vectors) or 'none'}")
    if not card.keeps_labels and not (card.keeps_tokens and card.fitted and card.tokens):
        raise DatasetError(f"{store.url}: keeps neither labels nor tokens of {name}, whose vectors are looked through")
    return card
