"""The vectors that a dataset has of one modality, unit by unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ...labelers.contract.kinds import Vector
from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.dataset import Dataset
from ...pipeline.dataset.finished import units_of
from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.dataset.reader import Column
from ...pipeline.storage.read_ahead import in_order

_AHEAD = 2
"""Units that are read while another is looked through."""


@dataclass(frozen=True)
class Rows:
    """Those of one unit that have a vector, in order. keys: of the unit's samples; sample: int64 (n,), which of them;
    view: int64 (n,); vectors: float32 (n, dim)."""

    unit: Unit
    keys: list[str]
    sample: np.ndarray
    view: np.ndarray
    vectors: np.ndarray


@dataclass
class Vectors:
    """Those of `modality`: its labels where the dataset keeps them, else what its tokens decode to (`origin`).

    lacking: samples so far that have none. Raises DatasetError where the modality isn't vectors, or isn't there yet.
    """

    dataset: Dataset
    modality: str
    lacking: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        reader = self.dataset.reader
        reader.chosen([self.modality])
        kind = reader.cards[self.modality].label_kind
        if not isinstance(kind, Vector):
            vectors = [name for name, card in reader.cards.items() if isinstance(card.label_kind, Vector)]
            raise DatasetError(
                f"{reader.store.url}: {self.modality} is no vector but {type(kind).__name__.lower()}; vectors of this "
                f"dataset are {', '.join(vectors) or 'none'}"
            )
        self.units = reader.units([self.modality])
        if not any(unit.count for unit in self.units):
            raise DatasetError(
                f"{reader.store.url}: no sample has {self.modality} yet; `tokenloom status` says how far it is"
            )

    @property
    def origin(self) -> str:
        return "labels" if self.dataset.reader.cards[self.modality].keeps_labels else "tokens"

    @property
    def samples(self) -> int:
        return sum(unit.count for unit in self.units)

    @property
    def unmade(self) -> int:
        """Samples of units that have nothing of the modality yet."""
        return units_of(self.dataset.reader.listed.values()).samples - self.samples

    def __iter__(self) -> Iterator[Rows]:
        """Unit by unit, some read ahead. Raises what reading shards raises."""
        self.lacking = 0
        reader, as_labels = self.dataset.reader, self.origin == "labels"
        columns = reader.columns_in_order([self.modality])

        def read(unit: Unit) -> Column:
            return reader.column(unit, self.modality, as_labels, columns)

        for unit, column in zip(self.units, in_order(read, self.units, threads=_AHEAD), strict=True):
            places = [place for place, value in enumerate(column.values) if value is not None]
            where = np.array(places, np.int64)
            sample = where // column.per_sample
            self.lacking += len(column.keys) - len(np.unique(sample))
            if places:
                found = [column.values[place] for place in places]
                if not as_labels:
                    found = self.dataset.modalities[self.modality].tokenizer().decode(found)
                yield Rows(unit, list(column.keys), sample, where % column.per_sample, np.stack(found))
