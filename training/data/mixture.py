"""A mixture of datasets as batches: any positions of the run's order, read, joined and masked."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.dataset.reader import DatasetReader
from ...tokenizers.contract.special_tokens import EOS, FIRST_SENTINEL
from ...tokenizers.contract.token_spec import TokenSpec
from .batch import Batch
from .draws import below, keys_of, stream
from .masking import Column, Form, Scheme, Texts, mask
from .order import Era, Order, Places, Source
from .parts import instance_starts, pair_chunks, shuffled
from .ride_along import EMBEDDINGS, PIXELS, TEXT, CorpusPixels, HeldUnit, read_held, stacked
from .unit_tokens import ReadUnit, Rows, read_unit

TEXT_TOKENS = 256
"""Of a text, with its [EOS], unless a mixture says otherwise: as 4M has it."""

PATCH = 16
"""Pixels on a side of what is one input token."""

_PARTS, _WINDOWS = 1 << 40, 1 << 41
"""Streams that say in which order a sample's instances stand, and where in a text its window begins; behind each lie
those of the further modalities, and below them masking's."""


@dataclass(frozen=True)
class MixedDataset:
    """A dataset as it is mixed in: some modalities of it, with the weight and repeats of `Source`.

    Among the modalities may be embeddings whose labels the dataset keeps, and `ride_along.PIXELS`, which are read from
    its corpus with the fsspec options that are given here; both are inputs alone.

    inputs, targets: which of them may be so; None: all. views: how many of a sample's views come up, the first ones;
    None: all. units: in the order in which they were taken up; None: all that have the modalities. eras: of `Source`.
    """

    name: str
    reader: DatasetReader
    modalities: Sequence[str]
    weight: float = 1.0
    repeats: int = 1
    inputs: Collection[str] | None = None
    targets: Collection[str] | None = None
    views: int | None = None
    units: Sequence[Unit] | None = None
    eras: Sequence[Era] = ()
    corpus_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def stored(self) -> list[str]:
        """The modalities that are the dataset's own."""
        return [name for name in self.modalities if name != PIXELS]

    @property
    def tokenised(self) -> list[str]:
        return [name for name in self.stored if self.reader.cards[name].kind["kind"] != EMBEDDINGS]

    @property
    def shown_views(self) -> int:
        return self.views or self.reader.views


@dataclass(frozen=True)
class _Share:
    """What a unit of a source gives to a batch. where: int64 (k,), where its samples stand there; rows: int64 (k,), in
    the unit."""

    source: int
    held: HeldUnit
    where: np.ndarray
    rows: np.ndarray


@dataclass
class Mixture:
    """Datasets with the order and the masking of a run. input_tokens, target_tokens: as of `masking.mask`. read: as
    `read_unit`, and by default that.

    max_tokens: of texts by modality, with their [EOS]; of others TEXT_TOKENS, or as many as their tokenizer gives where
    that is fewer. Of a longer text a sample is a window, which begins anywhere, drawn anew each time the text comes. A
    record or a list of instances is as long as its tokenizer makes it.
    """

    datasets: Sequence[MixedDataset]
    schemes: Sequence[Scheme]
    input_tokens: tuple[int, int]
    target_tokens: tuple[int, int]
    seed: int = 0
    window: int = 16
    max_tokens: Mapping[str, int] = field(default_factory=dict)
    read: ReadUnit = read_unit
    modalities: tuple[str, ...] = field(init=False)
    units: list[Sequence[Unit]] = field(init=False)

    def __post_init__(self) -> None:
        self.units = [one.reader.units(one.stored) if one.units is None else one.units for one in self.datasets]
        self._held: list[OrderedDict[int, HeldUnit]] = [OrderedDict() for _ in self.datasets]
        self._columns = [one.reader.columns for one in self.datasets]
        self.modalities = tuple(dict.fromkeys(name for one in self.datasets for name in one.modalities))
        self._cards = {name: self._card(name) for name in self.modalities if name != PIXELS}
        self._pixels = [
            CorpusPixels(one.reader.store, one.corpus_options) if PIXELS in one.modalities else None
            for one in self.datasets
        ]
        self._refuse_other_vocabularies()
        self._refuse_what_cannot_be()
        sources = [
            Source(one.name, [unit.count for unit in units], one.weight, one.repeats, one.shown_views, one.eras)
            for one, units in zip(self.datasets, self.units, strict=True)
        ]
        self._order = Order(sources, self.seed, self.window)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that says which sample stands where: a position means the same to mixtures that share it."""
        told = [
            [
                *(one.name, one.weight, one.repeats, one.shown_views, [unit.name for unit in units]),
                *([era.epoch, era.units] for era in one.eras),
            ]
            for one, units in zip(self.datasets, self.units, strict=True)
        ]
        return hashlib.sha256(json.dumps([self.seed, self.window, told]).encode()).hexdigest()

    @property
    def rides_along(self) -> bool:
        """Whether there is more to a sample than its tokens."""
        return any(len(one.tokenised) < len(one.modalities) for one in self.datasets)

    def batch(self, positions: np.ndarray) -> Batch:
        """The samples at these positions, int64 (n,) in rising order. Raises what `read_unit` raises."""
        shares = list(self._shares(positions))
        order = np.concatenate([share.where for share in shares] or [np.arange(0)])
        keys, back = keys_of(self.seed, positions[order]), np.argsort(order)
        arrays: dict[str, np.ndarray] = {}
        source_of = np.repeat([share.source for share in shares], [len(share.rows) for share in shares])
        columns = [self._in_roles(self._column(name, keys, shares, arrays), source_of) for name in self.modalities]
        masked = mask(keys, columns, self.schemes, self.input_tokens, self.target_tokens, FIRST_SENTINEL)
        inputs, targets = (side.rows(back) for side in masked)
        forms: tuple[Form, ...] = tuple(column.form for column in columns)
        most = tuple(column.most for column in columns)
        held = {name: array[back] for name, array in arrays.items()}
        return Batch(positions, self.modalities, inputs, targets, forms, most, held)

    def _shares(self, positions: np.ndarray) -> Iterator[_Share]:
        """Unit by unit, in the order in which they are come to: a window is done with before the next is begun."""
        for source, places in self._order.places(positions):
            order = np.argsort(places.unit, kind="stable")
            units, first, counts = np.unique(places.unit[order], return_index=True, return_counts=True)
            rows = (places.row * self.datasets[source].reader.views + places.view)[order]
            where = np.searchsorted(positions, places.position[order])
            for place in np.argsort(where[first]).tolist():
                own = slice(first[place], first[place] + counts[place])
                yield _Share(source, self._hold(source, int(units[place])), where[own], rows[own])

    def places(self, positions: np.ndarray) -> Iterator[tuple[int, Places]]:
        """As of `Order.places`; a source is the place among the datasets."""
        return self._order.places(positions)

    def next_epoch(self, source: int, position: int) -> int:
        """As of `Order.next_epoch`."""
        return self._order.next_epoch(source, position)

    def _in_roles(self, column: Column, source_of: np.ndarray) -> Column:
        """With the datasets told in which it may be an input, and a target. source_of: the dataset of each sample."""
        inputs, targets = (
            None
            if all(one is None for one in roles)
            else np.array([one is None or column.name in one for one in roles])
            for roles in ([one.inputs for one in self.datasets], [one.targets for one in self.datasets])
        )
        return replace(
            column,
            as_input=None if inputs is None else inputs[source_of],
            as_target=None if targets is None else targets[source_of],
        )

    def _card(self, name: str) -> ModalityCard:
        """Of the modality, which must be the same in all datasets that have it."""
        first: tuple[MixedDataset, ModalityCard] | None = None
        for one in self.datasets:
            if name not in one.modalities:
                continue
            card = one.reader.cards[name]
            if card.kind["kind"] == EMBEDDINGS:
                _refuse_embeddings(one, name, card, first and first[1])
                first = first or (one, card)
                continue
            if not card.keeps_tokens or card.tokens is None or card.tokens.spec is None:
                raise DatasetError(f"{one.reader.store.url}: {name} has no tokens, or its tokenizer isn't fitted yet")
            if first is not None and card.tokens_generation != first[1].tokens_generation:
                self._refuse_other_tokens(name, first, (one, card))
            first = first or (one, card)
        assert first is not None
        return first[1]

    def _refuse_other_tokens(self, name: str, *given: tuple[MixedDataset, ModalityCard]) -> None:
        """Raises DatasetError unless equal ids mean the same in both."""
        (one, card), (other, another) = given
        if _identity(card) == _identity(another):
            return
        raise DatasetError(
            f"{name} was tokenised by one tokenizer in {one.reader.store.url} and by another in "
            f"{other.reader.store.url}: the same ids would mean different things. Make them with the same one "
            f"(`tokenizer: {{weights: ...}}`, `vocabulary:`), or leave {name} out of one of them"
        )

    def _refuse_other_vocabularies(self) -> None:
        """Raises DatasetError where texts of two datasets were made with different vocabularies."""
        first: tuple[str, str, str] | None = None
        for one in self.datasets:
            for name in one.tokenised:
                vocabulary = _vocabulary(one.reader.cards[name])
                if vocabulary is None:
                    continue
                url = one.reader.store.url
                if first is not None and first[0] != url and first[2] != vocabulary:
                    raise DatasetError(
                        f"{first[1]} of {first[0]} and {name} of {url} were made with different vocabularies: the same "
                        f"ids would mean different words. Make the one with the other's (`vocabulary: {first[0]}`)"
                    )
                first = first or (url, name, vocabulary)

    def _refuse_what_cannot_be(self) -> None:
        """Raises DatasetError where views of two datasets differ in size, where `max_tokens` names what is no text, and
        for a dataset that gives no tokens."""
        for one in self.datasets:
            if not one.tokenised:
                raise DatasetError(f"{one.name}: none of its modalities has tokens: {', '.join(one.modalities)}")
        sizes = {one.settings.size: one.url for one in self._pixels if one is not None}
        if len(sizes) > 1:
            told = ", ".join(f"{size} in {url}" for size, url in sizes.items())
            raise DatasetError(f"{PIXELS} of views of one size can be mixed, and these have several: {told}")
        for name, most in self.max_tokens.items():
            if most < 1 or name not in self._cards or self._cards[name].kind["kind"] != TEXT:
                raise DatasetError(f"max_tokens: {name}: {most}: it takes texts of the mixture, and at least 1 token")

    def _column(self, name: str, keys: np.ndarray, shares: Sequence[_Share], arrays: dict[str, np.ndarray]) -> Column:
        """The modality of a batch; what isn't tokens is put into `arrays`."""
        if name == PIXELS:
            return self._pixel_column(shares, arrays)
        if self._cards[name].kind["kind"] == EMBEDDINGS:
            return self._embedding_column(name, shares, arrays)
        spec, number = _spec(self._cards[name]), self.modalities.index(name)
        rows = Rows([(share.held.tokens.get(name), share.rows) for share in shares])
        if spec.type != "text":
            return Column(name, "grid", rows.present, spec.max_length, at=rows.at)
        card, most = self._cards[name], self.most(name)
        if card.kind["kind"] == TEXT:
            texts = partial(_window, rows, stream(keys, _WINDOWS + number), most)
        else:
            texts = partial(_whole, card, rows, stream(keys, _PARTS + number))
        return Column(name, "text", rows.present, most, texts=texts)

    def most(self, name: str) -> int:
        """Tokens of the modality that a sample shows at most, a text's [EOS] among them."""
        spec = _spec(self._cards[name])
        most = spec.max_length + (spec.type == "text")
        if self._cards[name].kind["kind"] != TEXT:
            return most
        return self.max_tokens.get(name, min(most, TEXT_TOKENS))

    def _pixel_column(self, shares: Sequence[_Share], arrays: dict[str, np.ndarray]) -> Column:
        pictures = [picture for share in shares for picture in share.held.pictures(share.rows)]
        size = next(pixels.settings.size for pixels in self._pixels if pixels is not None)
        arrays[PIXELS] = stacked(pictures, (size, size, 3), np.uint8)
        return Column(PIXELS, "pixels", _present(pictures), (size // PATCH) ** 2)

    def _embedding_column(self, name: str, shares: Sequence[_Share], arrays: dict[str, np.ndarray]) -> Column:
        kind = self._cards[name].kind
        found = [one for share in shares for one in share.held.embeddings(name, share.rows)]
        lengths = np.array([0 if one is None else len(one) for one in found], np.int64)
        arrays[name] = stacked(found, (int(lengths.max(initial=0)), int(kind["dim"])), np.float16)

        def texts(rows: np.ndarray) -> Texts:
            return Texts(np.zeros((len(rows), int(lengths.max(initial=0))), np.int64), lengths[rows])

        return Column(name, "embeddings", _present(found), int(kind["max_length"]), texts=texts)

    def _hold(self, source: int, unit: int) -> HeldUnit:
        """A unit of which samples are asked for. As many are kept of each dataset as are read side by side; those of
        earlier windows aren't asked for again in the epoch."""
        held, one = self._held[source], self.datasets[source]
        if unit not in held:
            if len(held) >= self.window:
                held.popitem(last=False)
            which = self.units[source][unit]
            held[unit] = read_held(
                self._columns[source], which, one.tokenised, one.stored, self._pixels[source], self.read
            )
        held.move_to_end(unit)
        return held[unit]


def _window(rows: Rows, keys: np.ndarray, most: int, chosen: np.ndarray) -> Texts:
    """Texts with [EOS] at the end, of each at most so many tokens, from anywhere on where there are more."""
    total = rows.lengths[chosen] + 1
    shown = np.minimum(total, most)
    begin = below(keys[chosen], total - shown + 1)
    ids = rows.padded(chosen, begin, np.minimum(begin + shown, total - 1) - begin, 1)
    ended = np.flatnonzero(begin + shown == total)
    ids[ended, shown[ended] - 1] = EOS
    return Texts(ids, shown)


def _whole(card: ModalityCard, rows: Rows, keys: np.ndarray, chosen: np.ndarray) -> Texts:
    """Records and instances, the latter in an order of its own for each sample, and [EOS] at the end."""
    lengths = rows.lengths[chosen]
    ids = rows.padded(chosen, 0 * lengths, lengths, 1)
    if card.kind["kind"] == "instances":
        starts = instance_starts(ids, 1 if card.kind.get("pose") == "smpl" or card.kind.get("masks") else 0)
        ids = shuffled(keys[chosen], ids, lengths, starts)
    ids[np.arange(len(ids)), lengths] = EOS
    assert card.tokens is not None
    return Texts(ids, lengths + 1, pair_chunks(ids) if card.tokens.tokenizer == "record" else None)


def _present(values: Sequence[np.ndarray | None]) -> np.ndarray:
    return np.array([value is not None for value in values], bool)


def _refuse_embeddings(one: MixedDataset, name: str, card: ModalityCard, first: ModalityCard | None) -> None:
    """Raises DatasetError where they aren't kept, or are others than the first dataset's."""
    if not card.keeps_labels:
        raise DatasetError(f"{one.reader.store.url}: {name} are embeddings, and the dataset keeps no labels of them")
    if first is not None and (card.kind, card.labeler, card.weights) != (first.kind, first.labeler, first.weights):
        raise DatasetError(f"{one.reader.store.url}: {name} was made by another model than in the other datasets")


def _vocabulary(card: ModalityCard) -> str | None:
    return card.tokens.vocabulary.digest if card.tokens and card.tokens.vocabulary else None


def _identity(card: ModalityCard) -> tuple[Any, ...]:
    """What says which token an id is."""
    assert card.tokens is not None
    return card.tokens.files, card.tokens.spec, _vocabulary(card)


def _spec(card: ModalityCard) -> TokenSpec:
    assert card.tokens is not None
    assert card.tokens.spec is not None
    return card.tokens.spec
