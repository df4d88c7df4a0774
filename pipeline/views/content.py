"""What a dataset holds of one unit, for those who show or measure it: as far as it is there and can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..corpus.units import Unit
from ..dataset.finished import Finished
from ..dataset.ledger import Failure
from ..dataset.manifest import DatasetError, Manifest
from ..dataset.reader import Column, ColumnReader
from ..storage.store import Store


@dataclass(frozen=True)
class Content:
    """One modality of one unit. tokens, labels: per view, or per sample for labels of whole images; None where they
    aren't kept or weren't asked for. problem: why the dataset can't give them, "" when it can."""

    keys: Sequence[str] = ()
    tokens: Sequence[np.ndarray | None] | None = None
    labels: Sequence[bytes | None] | None = None
    failures: Mapping[tuple[str, int | None], Failure] = field(default_factory=dict)
    problem: str = ""

    def failure(self, key: str, view: int) -> Failure | None:
        return self.failures.get((key, view)) or self.failures.get((key, None))


class ContentReader:
    """Reads what is finished. finished: what each modality has."""

    def __init__(self, store: Store, manifest: Manifest, finished: Mapping[str, Finished]) -> None:
        self.store, self.modalities = store, list(manifest.modalities)
        self._cards, self._finished = manifest.modalities, finished
        revisions = {name: found.revisions for name, found in finished.items()}
        self._columns = ColumnReader(store, manifest.modalities, manifest.views["count"], revisions)

    def keys(self, unit: Unit) -> list[str]:
        """The keys of the unit's samples, from the first modality that can be read; [] when none can."""
        contents = (self.content(unit, name, labels=not self._cards[name].keeps_tokens) for name in self.modalities)
        return next((list(content.keys) for content in contents if content.keys), [])

    def content(self, unit: Unit, name: str, labels: bool) -> Content:
        """One modality of a unit; with `labels` the labels too, where they are kept."""
        if unit not in self._finished[name].units:
            return Content(problem="not made yet")
        card = self._cards[name]
        try:
            tokens = self._columns.tokens(unit, name) if card.keeps_tokens else None
            encoded = self._columns.labels(unit, name) if card.keeps_labels and labels else None
            failures = self._failures(unit, encoded or tokens)
        except (DatasetError, FileNotFoundError) as error:
            return Content(problem=str(error))
        return Content(
            keys=next((column.keys for column in (encoded, tokens) if column), []),
            tokens=tokens and tokens.values,
            labels=encoded and encoded.values,
            failures={(failure.key, failure.view): failure for failure in failures if not failure.is_note},
        )

    def rejections(self, unit: Unit) -> list[Failure]:
        """What the corpus reader refused in this unit."""
        for name in self.modalities:
            if unit in self._finished[name].units:
                read = self._columns.tokens if self._cards[name].keeps_tokens else self._columns.labels
                try:
                    return self._columns.rejections(unit, read(unit, name))
                except (DatasetError, FileNotFoundError):  # which `verify` tells apart
                    continue
        return []

    def _failures(self, unit: Unit, column: Column | None) -> list[Failure]:
        """Why values are missing, as far as the quarantine can be read: what is there can be shown without."""
        try:
            return self._columns.failures(unit, column) if column else []
        except DatasetError:
            return []
