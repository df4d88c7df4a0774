"""The labels that a dataset keeps, as its views see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ...labelers.contract.images import BadImage, read_header
from ...labelers.contract.kinds import Kind
from ...labelers.contract.views import ViewSettings, cut_view
from ..corpus.corpus import Corpus, CorpusError, CorpusSettings, Shard, UnitLimits
from ..corpus.units import Unit
from ..dataset.finished import list_finished
from ..dataset.listings import taken_shards
from ..dataset.manifest import DatasetError, require_manifest
from ..dataset.reader import ColumnReader
from ..storage.recent import RecentObjects
from ..storage.store import Store


@dataclass(frozen=True)
class KeptLabels:
    """The labels that a dataset keeps of a modality, as its views see them.

    units: take those alone; None: all. corpus_options: fsspec options of the corpus, which
    is read for the sizes of images where labels are of whole images and a view sees a part of them.
    """

    store: Store
    modality: str
    units: Sequence[Unit] | None = None
    corpus_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def read(self, kind: Kind) -> Iterator[Any]:
        """Decoded labels, by unit, sample and view. DatasetError where they aren't kept, or can't be cropped."""
        manifest = require_manifest(self.store)
        card = manifest.modalities.get(self.modality)
        if card is None or not card.keeps_labels:
            raise DatasetError(
                f"{self.store.url}: the dataset keeps no labels of {self.modality!r}; have the recipe say `keep: both` "
                f"and run it again"
            )
        finished = list_finished(self.store, {self.modality: card}, manifest.corpus.retired)[self.modality]
        units = sorted(finished.units) if self.units is None else self.units
        whole = card.on != "view" and kind.spatial
        settings = CorpusSettings.model_validate(
            {"url": manifest.corpus.url, "storage_options": dict(self.corpus_options), **manifest.corpus.reading}
        )
        shards = taken_shards(self.store, manifest.corpus) if whole else {}
        sizes = _ImageSizes(settings, shards, UnitLimits(**manifest.units)) if whole else None
        views = ViewSettings(**manifest.views)
        revisions, recent = {self.modality: finished.revisions}, RecentObjects(self.store, 1)
        columns = ColumnReader(self.store, manifest.modalities, views.count, revisions, recent=recent)
        for unit in units:
            column = columns.labels(unit, self.modality)
            known = sizes.of(unit) if sizes else {}
            for place, encoded in enumerate(column.values):
                if encoded is None:
                    continue
                label, key = kind.decode(encoded), column.keys[place // column.per_sample]
                if sizes is None:
                    yield label
                    continue
                for index in range(views.count):
                    view = cut_view(manifest.seed, key, index, *known[key], views)
                    yield kind.seen_by(view, label, card.on)


class _ImageSizes:
    """(height, width) of the corpus' upright images, by unit and key."""

    def __init__(self, settings: CorpusSettings, shards: Mapping[str, Shard], limits: UnitLimits) -> None:
        self._corpus, self._shards, self._limits = Corpus(settings), shards, limits

    def of(self, unit: Unit) -> dict[str, tuple[int, int]]:
        """Of one unit. Raises DatasetError where the corpus can't be read: the crops of views would be unknown."""
        try:
            if unit.shard not in self._shards:
                raise CorpusError(f"no listing of it has the shard {unit.shard}")
            found = next(self._corpus.read(self._shards[unit.shard], unit.start, unit.stop, self._limits))
        except (CorpusError, OSError) as error:
            raise DatasetError(
                f"the labels are of whole images, and to cut the views' parts out of them the corpus has to be read: "
                f"{error}"
            ) from None
        sizes = {}
        for sample in found.samples:
            with suppress(BadImage):  # it has no label either
                header = read_header(sample.image or b"")
                sizes[sample.key] = (header.height, header.width)
        return sizes
