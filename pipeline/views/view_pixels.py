"""What preview and evaluation read: the dataset unit by unit, its views' pixels, and labels as views see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...labelers.contract.images import BadImage, decode_view, read_header
from ...labelers.contract.kinds import Image
from ...labelers.contract.views import View, ViewSettings, cut_view
from ...tokenizers.contract.tokenizer import Tokenizer
from ..corpus.corpus import Corpus, CorpusError, CorpusSettings, Shard, UnitLimits
from ..corpus.units import Unit
from ..dataset.layout import CORPUS, label_path, ledger_path, token_path
from ..dataset.ledger import Failure
from ..dataset.manifest import Manifest, ModalityCard
from ..dataset.shards import BrokenShardError, read_labels, read_tokens
from ..storage.store import Store

RGB = "rgb"
"""The modality whose labels are the views themselves."""

GREY = 160
"""Of pixels that can't be had."""


@dataclass(frozen=True)
class Column:
    """One modality of one unit. tokens, labels: per view, or per sample for labels of whole images; None where they
    aren't kept or weren't asked for. problem: why the dataset can't give them, "" when it can."""

    keys: Sequence[str] = ()
    tokens: Sequence[np.ndarray | None] | None = None
    labels: Sequence[bytes | None] | None = None
    failures: Mapping[tuple[str, int | None], Failure] = field(default_factory=dict)
    problem: str = ""

    def failure(self, key: str, view: int) -> Failure | None:
        return self.failures.get((key, view)) or self.failures.get((key, None))


class UnitReader:
    """Reads a dataset's shards, as far as they are finished."""

    def __init__(self, store: Store, manifest: Manifest, finished: Mapping[str, AbstractSet[Unit]]) -> None:
        self.modalities = list(manifest.modalities)
        self._store, self._finished = store, finished
        self._cards, self._views = manifest.modalities, manifest.views["count"]

    def keys(self, unit: Unit) -> list[str]:
        """The keys of the unit's samples, from the first modality that can be read; [] when none can."""
        columns = (self.column(unit, name, labels=not self._cards[name].keeps_tokens) for name in self.modalities)
        return next((list(column.keys) for column in columns if column.keys), [])

    def column(self, unit: Unit, name: str, labels: bool) -> Column:
        """One modality of a unit; with `labels` the labels too, where they are kept."""
        if unit not in self._finished[name]:
            return Column(problem="not made yet")
        card, keys, tokens, encoded = self._cards[name], [], None, None
        try:
            if card.keeps_tokens:
                shard = read_tokens(self._store.read(token_path(name, unit)))
                keys, tokens = shard.rows.keys[:: self._views], shard.tokens
            if card.keeps_labels and labels:
                shard = read_labels(self._store.read(label_path(name, unit)))
                keys, encoded = shard.rows.keys[:: self._views if card.on == "view" else 1], shard.labels
        except (BrokenShardError, FileNotFoundError) as error:
            return Column(problem=f"{name}/{unit.name} can't be read: {error}; `tokenloom verify` tells more")
        failures = {(failure.key, failure.view): failure for failure in self._ledger(name, unit)}
        return Column(keys, tokens, encoded, failures)

    def rejections(self, unit: Unit) -> list[Failure]:
        """What the corpus reader refused in this unit."""
        return self._ledger(CORPUS, unit)

    def _ledger(self, name: str, unit: Unit) -> list[Failure]:
        try:
            return [Failure.from_line(line) for line in self._store.read(ledger_path(name, unit)).splitlines()]
        except FileNotFoundError:
            return []


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
    if card.on == "view" or not kind.spatial:
        return label, True
    return (label, False) if seen.view is None else (kind.crop(label, seen.view), True)


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
        self._unseen = Seen(np.full((self._settings.size, self._settings.size, 3), GREY, np.uint8), "", None)

    def find(
        self, unit: Unit, keys: Sequence[str], samples: Sequence[int], reader: UnitReader
    ) -> dict[tuple[int, int], Seen]:
        """All views of some samples of a unit (indices into its keys), by (sample, view)."""
        wanted = {keys[sample]: sample for sample in samples}
        rgb = reader.column(unit, RGB, labels=True) if self._rgb else Column()
        labels = rgb.labels
        crops = {} if labels and not self._needs_crops() else self._from_corpus(unit, wanted)
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

    def _from_corpus(self, unit: Unit, wanted: Mapping[str, int]) -> dict[tuple[int, int], tuple[View, np.ndarray]]:
        found = {}
        try:
            if self._shards is None:
                self._shards = {}
                self._shards = {shard.id: shard for shard in self._corpus.shards()}
            shard = self._shards.get(unit.shard)
            if shard is None:
                return {}
            limits = UnitLimits(**self._manifest.units)
            for sample in next(self._corpus.read(shard, unit.start, unit.stop, limits)).samples:
                if sample.key in wanted:
                    for index, cut in enumerate(self._views(sample.key, sample.image or b"")):
                        found[wanted[sample.key], index] = cut
        except (CorpusError, OSError) as error:
            self.problem = f"the corpus can't be read: {error}"
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

    def _from_tokens(self, rgb: Column, samples: Sequence[int]) -> dict[tuple[int, int], np.ndarray]:
        if self._tokenizer is None or rgb.tokens is None:
            return {}
        count = self._settings.count
        places = [(sample, view) for sample in samples for view in range(count)]
        tokens = {place: ids for place in places if (ids := rgb.tokens[place[0] * count + place[1]]) is not None}
        return dict(zip(tokens, self._tokenizer.decode(list(tokens.values())), strict=True))
