"""What an export is made of: pieces of the dataset, and the files that a format makes of each."""

from __future__ import annotations

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.manifest import Manifest
from ...pipeline.dataset.reader import Column, ColumnReader, aligned

if TYPE_CHECKING:
    import pyarrow as pa


class ExportError(ValueError):
    """An export that can't be made as asked; the message says what to do."""


@dataclass(frozen=True)
class Piece:
    """Consecutive units, of which a format makes its files of that number; count: of all pieces."""

    number: int
    count: int
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Source:
    """What is exported: the dataset as it was when the export began. May be pickled."""

    reader: ColumnReader
    manifest: Manifest
    modalities: tuple[str, ...]

    @property
    def views(self) -> int:
        return self.reader.views

    @property
    def cards(self) -> dict[str, ModalityCard]:
        """Of the modalities that are exported."""
        return {name: self.reader.cards[name] for name in self.modalities}

    def rows(self, unit: Unit) -> Iterator[tuple[str, int, dict[str, np.ndarray | None]]]:
        """Key, view and tokens (1-d; None where the sample lacks the modality) of each row of a unit, in order."""
        columns = self.columns(unit)
        for sample, key in enumerate(columns[self.modalities[0]].keys):
            for view in range(self.views):
                yield key, view, {name: column.value(sample, view) for name, column in columns.items()}

    def columns(self, unit: Unit) -> dict[str, Column]:
        """The tokens of a unit. Raises DatasetError where the modalities don't hold the same samples."""
        return aligned({name: self.reader.tokens(unit, name) for name in self.modalities}, self.reader.store.url)


@dataclass(frozen=True)
class Made:
    """The files of a piece by their paths, in the order in which they are written. rows: that they hold, as the format
    counts them. left_out: how many of the dataset's are not among them, by reason. told: how many there are of which
    something has to be told, by what it is."""

    files: dict[str, bytes]
    rows: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    told: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """A file as it was written. size: bytes."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Written:
        return cls(len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Receipt:
    """That a piece was there, whole and read back. files: by path. rows, left_out, told: as of `Made`."""

    files: dict[str, Written]
    rows: int
    left_out: dict[str, int]
    told: dict[str, int]

    @classmethod
    def of(cls, made: Made) -> Receipt:
        files = {path: Written.of(data) for path, data in made.files.items()}
        return cls(files, made.rows, dict(made.left_out), dict(made.told))

    @property
    def bytes(self) -> int:
        return sum(one.size for one in self.files.values())

    def to_bytes(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Receipt:
        """Raises ExportError for anything but what `to_bytes` gave."""
        try:
            raw: dict[str, Any] = json.loads(data)
            return cls(**{**raw, "files": {path: Written(**one) for path, one in raw["files"].items()}})
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ExportError(f"{source}: it isn't a receipt any more: delete it and run this again") from None


class Format(ABC):
    """A format of other trainers. May be pickled.

    name: as the user writes it. most_rows: of a piece, which has one unit at least.
    """

    name: str
    most_rows: int

    def refuses(self, name: str, card: ModalityCard) -> str:
        """Why the format can't have a modality; "" where it can."""
        labels = "only its labels are kept, and no tokens; have the recipe say `keep: both` of it and run it again"
        return "" if card.keeps_tokens else labels

    def check(self, source: Source) -> None:  # noqa: B027 - not every format has to refuse something
        """Raises ExportError for a dataset that the format can't hold."""

    def prepare(self, source: Source, pieces: Sequence[Piece]) -> None:  # noqa: B027 - as above
        """Raises ExportError where these pieces can't be made as things are; before any is."""

    def settings(self, source: Source) -> dict[str, Any]:
        """What determines the files, beside the dataset."""
        return {}

    def notes(self, source: Source, pieces: int) -> list[str]:
        """What whoever reads the files of so many pieces should be told, a line each."""
        return []

    @abstractmethod
    def make(self, source: Source, piece: Piece) -> Made:
        """The files of a piece: a pure function."""

    @abstractmethod
    def count(self, files: Mapping[str, bytes]) -> int:
        """The rows that a reader of the format finds in the files of a piece."""

    def closing(self, source: Source, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        """Files about all pieces, by path, which are written last."""
        return {}


def read_parquet(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """A file as it was read back; without Arrow's threads, as pipeline/dataset/shards.py says why."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(io.BytesIO(data), pre_buffer=False).read(columns=columns and list(columns), use_threads=False)


def cut_pieces(units: Sequence[Unit], most_samples: int, most_units: int) -> list[Piece]:
    """Units in order, put together while they have no more samples than that; units without samples are in none."""
    groups: list[list[Unit]] = []
    size = 0
    for unit in units:
        if unit.count and (not groups or size + unit.count > most_samples or len(groups[-1]) == most_units):
            groups.append([])
            size = 0
        if unit.count:
            groups[-1].append(unit)
            size += unit.count
    return [Piece(number, len(groups), tuple(group)) for number, group in enumerate(groups)]
