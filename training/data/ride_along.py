"""What samples have that isn't tokens, and rides along as input: embeddings, and pixels of the corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.manifest import DatasetError, require_manifest
from ...pipeline.dataset.reader import Column, ColumnReader, misaligned
from ...pipeline.dataset.shard_meta import rows_digest
from ...pipeline.dataset.shards import RowKeys
from ...pipeline.storage.store import Store
from .unit_tokens import Tokens, read_unit

if TYPE_CHECKING:
    from ...pipeline.corpus.samples import Sample, UnitLimits

PIXELS = "pixels"
"""The modality of a mixture that is no dataset's, but the corpus' own: RGB in the sample's view."""


EMBEDDINGS, TEXT = "embeddings", "text"
"""Names of kinds, as cards have them; the kinds themselves would bring Pillow with them."""


def is_embeddings(card: ModalityCard) -> bool:
    return card.kind["kind"] == EMBEDDINGS


@dataclass(frozen=True)
class HeldUnit:
    """What a mixture needs of a unit. tokens: by modality. labels: of embeddings, as they are stored. samples: of the
    corpus, their images encoded. skipped: modalities that couldn't be read, which its samples lack therefore."""

    views: int
    tokens: Mapping[str, Tokens] = field(default_factory=dict)
    labels: Mapping[str, Column] = field(default_factory=dict)
    kinds: Mapping[str, Any] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    pixels: CorpusPixels | None = None
    skipped: frozenset[str] = frozenset()

    def embeddings(self, name: str, rows: np.ndarray) -> list[np.ndarray | None]:
        """float16 (length, dim) of each row, a view of a sample; None where it has none."""
        if name not in self.labels:
            return [None] * len(rows)
        values = [self.labels[name].value(*divmod(row, self.views)) for row in rows.tolist()]
        return [None if value is None else self.kinds[name].decode(value) for value in values]

    def pictures(self, rows: np.ndarray) -> list[np.ndarray | None]:
        """uint8 (size, size, 3) of each row."""
        if self.pixels is None:
            return [None] * len(rows)
        places = [divmod(row, self.views) for row in rows.tolist()]
        return [self.pixels.decode(self.samples[sample], view) for sample, view in places]


ReadHeld: TypeAlias = "Callable[[ColumnReader, Unit, Sequence[str], CorpusPixels | None], HeldUnit]"


def read_held(reader: ColumnReader, unit: Unit, stored: Sequence[str], pixels: CorpusPixels | None) -> HeldUnit:
    """stored: the modalities of the dataset that are read: the tokens of each, of embeddings the labels.

    Raises DatasetError where shards or the corpus don't hold the same samples, and what ColumnReader raises.
    """
    told = [name for name in stored if is_embeddings(reader.cards[name])]
    rows, tokens = read_unit(reader, unit, [name for name in stored if name not in told])
    labels = {name: reader.labels(unit, name) for name in told}
    for column in labels.values():
        rows = rows or _rows(column.keys, reader.views)
        if rows != _rows(column.keys, reader.views):
            other = next(iter(labels.values())).path if not tokens else reader.token_path(unit, next(iter(tokens)))
            raise misaligned(reader.store.url, column.path, other)
    samples = pixels.read(unit, rows, reader.views) if pixels else ()
    kinds = {name: reader.cards[name].label_kind for name in told}
    return HeldUnit(reader.views, tokens, labels, kinds, samples, pixels)


def _rows(keys: Sequence[str], views: int) -> str:
    rows = RowKeys.of(keys, views)
    return rows_digest(rows.keys, rows.views)


class CorpusPixels:
    """The images of a dataset's corpus as its views see them. options: fsspec's, of the corpus.

    Reading raises StorageError where the storage doesn't answer.
    """

    def __init__(self, store: Store, options: Mapping[str, Any]) -> None:
        from ...labelers.contract.views import ViewSettings
        from ...pipeline.corpus.corpus import Corpus, CorpusSettings, UnitLimits
        from ...pipeline.dataset.listings import taken_shards

        manifest = require_manifest(store)
        if manifest.corpus.reading.get("text") is not None:
            raise DatasetError(f"the corpus of {store.url} is of texts, without pictures: leave {PIXELS} out")
        self.url, self.seed, self.settings = store.url, manifest.seed, ViewSettings(**manifest.views)
        reading = {"url": manifest.corpus.url, "storage_options": dict(options), **manifest.corpus.reading}
        self._corpus = Corpus(CorpusSettings.model_validate(reading))
        self._shards, self._limits = taken_shards(store, manifest.corpus), UnitLimits(**manifest.units)

    def check(self, unit: Unit) -> None:
        """Looks for the unit's first sample in the corpus. Raises DatasetError where it can't be read."""
        from ...pipeline.corpus.corpus import UnitLimits

        self._read(unit, UnitLimits(samples=1))

    def read(self, unit: Unit, rows: str, views: int) -> Sequence[Sample]:
        """The unit's samples, images encoded. rows: the digest of its rows, of so many views each.

        Raises DatasetError where they can't be read, or aren't those.
        """
        found = self._read(unit, self._limits)
        if rows != _rows([sample.key for sample in found], views):
            raise DatasetError(
                f"{self.url}: the corpus has other samples than those that {unit.name} was made of: it has changed "
                f"since; leave {PIXELS} out of the modalities, or have the dataset made anew"
            )
        return found

    def _read(self, unit: Unit, limits: UnitLimits) -> Sequence[Sample]:
        from ...pipeline.corpus.corpus import CorpusError

        try:
            if unit.shard not in self._shards:
                raise CorpusError(f"no listing of it has the shard {unit.shard}")
            found = next(self._corpus.read(self._shards[unit.shard], unit.start, unit.stop, limits), None)
            if found is None:
                raise CorpusError(f"{unit.shard} has no sample there")
            return found.samples
        except (CorpusError, FileNotFoundError) as error:
            raise DatasetError(
                f"{self.url}: the {PIXELS} of {unit.name} are read from its corpus, and {error}; put it back, or leave "
                f"{PIXELS} out"
            ) from None

    def decode(self, sample: Sample, view: int) -> np.ndarray | None:
        """uint8 (size, size, 3), or None where there is no picture."""
        from ...labelers.contract.images import BadImage, decode_view, read_header
        from ...labelers.contract.views import cut_view

        data = sample.image or b""
        try:
            size = read_header(data)
            return decode_view(data, cut_view(self.seed, sample.key, view, size.height, size.width, self.settings))
        except BadImage:
            return None


def stacked(arrays: Sequence[np.ndarray | None], shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """(n, *shape): arrays of at most that shape, zeros where there is nothing."""
    made = np.zeros((len(arrays), *shape), dtype)
    for row, array in _there(arrays):
        made[row, : len(array)] = array
    return made


def _there(arrays: Sequence[np.ndarray | None]) -> Iterator[tuple[int, np.ndarray]]:
    return ((row, array) for row, array in enumerate(arrays) if array is not None)
