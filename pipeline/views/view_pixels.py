"""The pixels of views, from wherever they can be had, and labels as these views see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...labelers.contract.images import BadImage, decode_view, read_header
from ...labelers.contract.kinds import Image
from ...labelers.contract.views import View, ViewSettings, cut_view
from ...tokenizers.contract.tokenizer import Tokenizer
from ..corpus.corpus import Corpus, CorpusError, CorpusSettings, Shard, UnitLimits
from ..corpus.units import Unit
from ..dataset.cards import ModalityCard
from ..dataset.listings import taken_shards
from ..dataset.manifest import DatasetError, Manifest
from ..storage.errors import StorageError
from .content import Content, ContentReader

RGB = "rgb"
"""The modality whose labels are the views themselves."""

GREY = 160
"""Of pixels that can't be had."""


@dataclass(frozen=True)
class Seen:
    """One view: its pixels, uint8 (size, size, 3), from where, and its crop where the corpus could tell it.

    origin: "labels" or "tokens" of the modality rgb, "corpus", or "" for none, where the pixels are plain grey.
    """

    pixels: np.ndarray
    origin: str
    view: View | None

    @property
    def is_label(self) -> bool:
        """Whether the pixels are as the corpus has them: the label of the modality rgb."""
        return self.origin in ("labels", "corpus")


def label_seen(card: ModalityCard, encoded: bytes, seen: Seen) -> tuple[Any, bool]:
    """A stored label as the view sees it, and True; or, where the crop of a whole image isn't known, all of it, and
    False."""
    kind = card.label_kind
    label = kind.decode(encoded)
    if seen.view is None:
        return label, card.on == "view" or not kind.spatial
    return kind.seen_by(seen.view, label, card.on), True


class ViewFinder:
    """Finds the pixels of views: the labels of the modality rgb where they are kept, else the corpus where it can be
    reached, else what the tokens of rgb decode to."""

    def __init__(self, manifest: Manifest, tokenizers: Mapping[str, Tokenizer]) -> None:
        self.origins: Counter[str] = Counter()
        self.problem = ""
        self._manifest, self._tokenizer = manifest, tokenizers.get(RGB)
        self._settings = ViewSettings(**manifest.views)
        card = manifest.modalities.get(RGB)
        self._rgb = card.label_kind if card and card.on == "view" and card.kind["kind"] == Image.name else None
        self._corpus = Corpus(CorpusSettings.model_validate({"url": manifest.corpus.url, **manifest.corpus.reading}))
        self._shards: dict[str, Shard] | None = None
        self._answers = True
        self._unseen = Seen(np.full((self._settings.size, self._settings.size, 3), GREY, np.uint8), "", None)

    def find(
        self, unit: Unit, keys: Sequence[str], samples: Sequence[int], reader: ContentReader
    ) -> dict[tuple[int, int], Seen]:
        """All views of some samples of a unit (indices into its keys), by (sample, view)."""
        wanted = {keys[sample]: sample for sample in samples}
        rgb = reader.content(unit, RGB, labels=True) if self._rgb else Content()
        labels = rgb.labels
        crops = {} if labels and not self._needs_crops() else self._from_corpus(unit, wanted, reader)
        count = self._settings.count
        decoded = {} if labels or crops else self._from_tokens(rgb, samples)
        found = {}
        for sample in samples:
            for view in range(count):
                found[sample, view] = self._seen(
                    labels[sample * count + view] if labels else None,
                    crops.get((sample, view)),
                    decoded.get((sample, view)),
                )
        self.origins.update(seen.origin for seen in found.values())
        return found

    def _seen(self, label: bytes | None, crop: tuple[View, np.ndarray] | None, decoded: np.ndarray | None) -> Seen:
        view = crop[0] if crop else None
        if label is not None and self._rgb is not None:
            return Seen(self._rgb.decode(label), "labels", view)
        if crop is not None:
            return Seen(crop[1], "corpus", view)
        if decoded is not None:
            return Seen(decoded, "tokens", None)
        return self._unseen

    def _needs_crops(self) -> bool:
        """Whether kept labels span the whole image, so that the view's crop of them has to be known."""
        cards = self._manifest.modalities.values()
        return any(card.keeps_labels and card.on != "view" and card.label_kind.spatial for card in cards)

    def _from_corpus(
        self, unit: Unit, wanted: Mapping[str, int], reader: ContentReader
    ) -> dict[tuple[int, int], tuple[View, np.ndarray]]:
        if self._corpus.settings.text is not None or not self._answers:
            return {}  # texts have no pixels
        found = {}
        try:
            if self._shards is None:
                self._shards = {}
                self._shards = taken_shards(reader.store, self._manifest.corpus)
            shard = self._shards.get(unit.shard)
            if shard is None:
                return {}
            limits = UnitLimits(**self._manifest.units)
            for sample in next(self._corpus.read(shard, unit.start, unit.stop, limits)).samples:
                if sample.key in wanted:
                    for index, cut in enumerate(self._views(sample.key, sample.image or b"")):
                        found[wanted[sample.key], index] = cut
        except (CorpusError, DatasetError, OSError) as error:
            self.problem = f"the corpus can't be read: {error}"
            self._answers = not isinstance(error, StorageError)  # which has been tried several times
        return found

    def _views(self, key: str, data: bytes) -> list[tuple[View, np.ndarray]]:
        try:
            size = read_header(data)
            cuts = [
                cut_view(self._manifest.seed, key, index, size.height, size.width, self._settings)
                for index in range(self._settings.count)
            ]
            return [(view, decode_view(data, view)) for view in cuts]
        except BadImage:
            return []

    def _from_tokens(self, rgb: Content, samples: Sequence[int]) -> dict[tuple[int, int], np.ndarray]:
        if self._tokenizer is None or rgb.tokens is None:
            return {}
        count = self._settings.count
        places = [(sample, view) for sample in samples for view in range(count)]
        tokens = {place: ids for place in places if (ids := rgb.tokens[place[0] * count + place[1]]) is not None}
        return dict(zip(tokens, self._tokenizer.decode(list(tokens.values())), strict=True))
