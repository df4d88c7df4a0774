"""What the dataset says of samples: their labels as the views see them, their tokens, and their pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...pipeline.dataset.finished import list_finished
from ...pipeline.dataset.tokenizers import load_tokenizer
from ...pipeline.views.content import Content, ContentReader
from ...pipeline.views.view_pixels import RGB, Seen, ViewFinder, label_seen
from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.vq.base import TrainedTokenizer
from .opened import Opened


@dataclass(frozen=True)
class Sample:
    """Of one sample. tokens, labels: by modality, where it has any; a label of a whole image whose crop isn't known is
    left out. seen: its view."""

    key: str
    seen: Seen
    tokens: Mapping[str, np.ndarray]
    labels: Mapping[str, Any]


class Truth:
    """Reads it for the samples of an evaluation. tokenizers: the dataset's own, of the target modalities, on the device
    where the model is."""

    def __init__(self, opened: Opened) -> None:
        self._opened, mixed = opened, opened.dataset.mixed
        manifest, store = opened.dataset.manifest, mixed.reader.store
        self.names = list(opened.targets)
        self.cards = manifest.modalities
        tokenised = {*self.names, RGB} & set(mixed.tokenised)
        self.tokenizers: dict[str, Tokenizer] = {
            name: load_tokenizer(store, name, self.cards[name]) for name in sorted(tokenised)
        }
        for one in self.tokenizers.values():
            if isinstance(one, TrainedTokenizer):
                one.use_device(str(opened.model.mask_token.device))
        self._finder = ViewFinder(manifest, self.tokenizers)
        finished = list_finished(store, manifest.modalities, manifest.corpus.retired)
        self._contents = ContentReader(store, manifest, finished)

    def of(self, positions: np.ndarray) -> list[Sample]:
        """positions: int64 (n,), in rising order, as of `Opened.chunks`."""
        ((_, places),) = self._opened.mixture.places(positions)
        found: dict[int, Sample] = {}
        for unit in np.unique(places.unit).tolist():
            rows = np.flatnonzero(places.unit == unit)
            found |= dict(zip(rows.tolist(), self._of_unit(unit, places.row[rows], places.view[rows]), strict=True))
        return [found[row] for row in range(len(positions))]

    def _of_unit(self, number: int, samples: np.ndarray, views: np.ndarray) -> Iterator[Sample]:
        unit = self._opened.dataset.units[number]
        contents = {name: self._contents.content(unit, name, labels=True) for name in self.names}
        keys = self._contents.keys(unit)
        seen = self._finder.find(unit, keys, samples.tolist(), self._contents)
        for sample, view in zip(samples.tolist(), views.tolist(), strict=True):
            own = seen[sample, view]
            tokens = {
                name: ids for name, one in contents.items() if (ids := self._tokens(one, sample, view)) is not None
            }
            labels = {
                name: label for name, one in contents.items() for label in self._label(name, one, sample, own, view)
            }
            yield Sample(keys[sample], own, tokens, labels)

    def _tokens(self, content: Content, sample: int, view: int) -> np.ndarray | None:
        return content.tokens[sample * self._views + view] if content.tokens is not None else None

    def _label(self, name: str, content: Content, sample: int, seen: Seen, view: int) -> Sequence[Any]:
        """One, or none."""
        if name == RGB and seen.is_label:
            return [seen.pixels]
        card = self.cards[name]
        if content.labels is None:
            return []
        encoded = content.labels[sample * self._views + view if card.on == "view" else sample]
        if encoded is None:
            return []
        label, as_seen = label_seen(card, encoded, seen)
        return [label] if as_seen else []

    @property
    def _views(self) -> int:
        return self._opened.dataset.mixed.reader.views
