"""What samples have that isn't tokens, and rides along as input: embeddings, and pixels of the corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.manifest import DatasetError, require_manifest
from ...pipeline.dataset.reader import Column, ColumnReader, misaligned
from ...pipeline.storage.store import Store
from .unit_tokens import ReadUnit, Tokens, read_unit

if TYPE_CHECKING:
    from ...pipeline.corpus.samples import Sample

PIXELS = "pixels"
"""The modality of a mixture that is no dataset's, but the corpus' own: RGB in the sample's view."""


EMBEDDINGS, TEXT = "embeddings", "text"
"""Names of kinds, as cards have them; the kinds themselves would bring Pillow with them."""


@dataclass(frozen=True)
class HeldUnit:
    """What a mixture needs of a unit. tokens: by modality. labels: of embeddings, as they are stored. samples: of the
    corpus, their images encoded."""

    views: int
    tokens: Mapping[str, Tokens]
    labels: Mapping[str, Column] = field(default_factory=dict)
    kinds: Mapping[str, Any] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    pixels: CorpusPixels | None = None

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


def read_held(
    reader: ColumnReader,
    unit: Unit,
    tokenised: Sequence[str],
    stored: Sequence[str],
    pixels: CorpusPixels | None,
    read: ReadUnit = read_unit,
) -> HeldUnit:
    """tokenised: modalities whose tokens are read, by `read`; stored: those and embeddings.

    Raises DatasetError where shards or the corpus don't hold the same samples, and what ColumnReader raises.
    """
    tokens = read(reader, unit, tokenised)
    labels = {name: reader.labels(unit, name) for name in stored if name not in tokens}
    if not labels and pixels is None:
        return HeldUnit(reader.views, tokens)
    keys = reader.keys(unit, tokenised[0])
    for column in labels.values():
        if column.keys != keys:
            raise misaligned(reader.store.url, column.path, reader.token_path(unit, tokenised[0]))
    kinds = {name: reader.cards[name].label_kind for name in labels}
    return HeldUnit(reader.views, tokens, labels, kinds, pixels.read(unit, keys) if pixels else (), pixels)


class CorpusPixels:
    """The images of a dataset's corpus as its views see them. options: fsspec's, of the corpus."""

    def __init__(self, store: Store, options: Mapping[str, Any]) -> None:
        from ...labelers.contract.views import ViewSettings
        from ...pipeline.corpus.corpus import Corpus, CorpusSettings, UnitLimits
        from ...pipeline.dataset.listings import taken_shards

        manifest = require_manifest(store)
        self.url, self.seed, self.settings = store.url, manifest.seed, ViewSettings(**manifest.views)
        reading = {"url": manifest.corpus.url, "storage_options": dict(options), **manifest.corpus.reading}
        self._corpus = Corpus(CorpusSettings.model_validate(reading))
        self._shards, self._limits = taken_shards(store, manifest.corpus), UnitLimits(**manifest.units)

    def read(self, unit: Unit, keys: Sequence[str]) -> Sequence[Sample]:
        """The unit's samples, images encoded. Raises DatasetError unless they are those of these keys."""
        from ...pipeline.corpus.corpus import CorpusError

        try:
            if unit.shard not in self._shards:
                raise CorpusError(f"no listing of it has the shard {unit.shard}")
            found = next(self._corpus.read(self._shards[unit.shard], unit.start, unit.stop, self._limits))
        except (CorpusError, OSError) as error:
            raise DatasetError(f"{self.url}: the pixels of {unit.name} are read from the corpus: {error}") from None
        if [sample.key for sample in found.samples] != list(keys):
            raise DatasetError(
                f"{self.url}: the corpus has other samples than those that {unit.name} was made of: it has changed "
                f"since; leave {PIXELS} out of the modalities, or have the dataset made anew"
            )
        return found.samples

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
