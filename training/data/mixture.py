"""A mixture of datasets as batches: any positions of the run's order, read, joined and masked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.reader import ColumnReader
from ...tokenizers.contract.special_tokens import EOS, FIRST_SENTINEL
from ...tokenizers.contract.token_spec import TokenSpec
from .batch import Batch
from .draws import below, keys_of, stream
from .holding import Holding
from .masking import Column, Form, Scheme, Texts, mask
from .mixed import MixedDataset, UnmixableError, common_card, pixels_of, refuse_other_vocabularies
from .order import Order, Places, Source
from .parts import instance_starts, pair_chunks, shuffled
from .ride_along import PIXELS, TEXT, CorpusPixels, HeldUnit, ReadHeld, read_held, stacked
from .unit_tokens import Rows

TEXT_TOKENS = 256
"""Of a text, with its [EOS], unless a mixture says otherwise: as 4M has it."""

PATCH = 16
"""Pixels on a side of what is one input token."""

_PARTS, _WINDOWS = 1 << 40, 1 << 41
"""Streams that say in which order a sample's instances stand, and where in a text its window begins; behind each lie
those of the further modalities, and below them masking's."""


@dataclass(frozen=True)
class _Share:
    """What a unit of a source gives to a batch. where: int64 (k,), where its samples stand there; rows: int64 (k,), in
    the unit."""

    source: int
    held: HeldUnit
    where: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Masking:
    """How a batch is masked; see `masking.mask`."""

    schemes: Sequence[Scheme]
    input_tokens: tuple[int, int]
    target_tokens: tuple[int, int]

    @property
    def arguments(self) -> tuple[Sequence[Scheme], tuple[int, int], tuple[int, int]]:
        return self.schemes, self.input_tokens, self.target_tokens


@dataclass
class Mixture:
    """Datasets with the order and the masking of a run. input_tokens, target_tokens: as of `masking.mask`. read: as
    `read_held`, and by default that.

    max_tokens: of texts by modality, with their [EOS]; of others TEXT_TOKENS, or as many as their tokenizer gives where
    that is fewer. Of a longer text a sample is a window, which begins anywhere, drawn anew each time the text comes. A
    record or a list of instances is as long as its tokenizer makes it.

    Making one raises UnmixableError, and DatasetError for a dataset that can't be read.
    """

    datasets: Sequence[MixedDataset]
    schemes: Sequence[Scheme]
    input_tokens: tuple[int, int]
    target_tokens: tuple[int, int]
    seed: int = 0
    window: int = 16
    max_tokens: Mapping[str, int] = field(default_factory=dict)
    read: ReadHeld = read_held
    modalities: tuple[str, ...] = field(init=False)
    units: list[Sequence[Unit]] = field(init=False)
    columns: list[ColumnReader] = field(init=False)
    pixels: list[CorpusPixels | None] = field(init=False)
    holding: Holding[HeldUnit] = field(init=False)

    def __post_init__(self) -> None:
        self.units = [one.reader.units(one.stored) if one.units is None else one.units for one in self.datasets]
        self.holding = Holding[HeldUnit](len(self.datasets), self.window)
        self.columns = [one.reader.columns for one in self.datasets]
        self.modalities = tuple(dict.fromkeys(name for one in self.datasets for name in one.modalities))
        refuse_other_vocabularies(self.datasets)
        self._cards = {name: common_card(self.datasets, name) for name in self.modalities if name != PIXELS}
        self.pixels = [pixels_of(one) for one in self.datasets]
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
        return None in map(self.spec, self.modalities)

    def batch(self, positions: np.ndarray) -> Batch:
        """The samples at these positions, int64 (n,) in rising order. Raises what `read_unit` raises."""
        (made,) = self.batches(positions, [Masking(self.schemes, self.input_tokens, self.target_tokens)])
        return made

    def batches(self, positions: np.ndarray, maskings: Sequence[Masking]) -> list[Batch]:
        """As `batch`, masked in each of these ways."""
        shares = list(self._shares(positions))
        order = np.concatenate([share.where for share in shares] or [np.arange(0)])
        keys, back = keys_of(self.seed, positions[order]), np.argsort(order)
        arrays: dict[str, np.ndarray] = {}
        source_of = np.repeat([share.source for share in shares], [len(share.rows) for share in shares])
        columns = [self._in_roles(self._column(name, keys, shares, arrays), source_of) for name in self.modalities]
        forms: tuple[Form, ...] = tuple(column.form for column in columns)
        most = tuple(column.most for column in columns)
        held = {name: array[back] for name, array in arrays.items()}
        same = self._skipped(shares)[back], forms, most, held
        sides = [mask(keys, columns, *one.arguments, FIRST_SENTINEL) for one in maskings]
        return [
            Batch(positions, self.modalities, inputs.rows(back), targets.rows(back), *same) for inputs, targets in sides
        ]

    def _skipped(self, shares: Sequence[_Share]) -> np.ndarray:
        """bool (n, m): of each sample the modalities that couldn't be read."""
        rows = [[name in share.held.skipped for name in self.modalities] for share in shares]
        return np.repeat(
            np.array(rows, bool).reshape(-1, len(self.modalities)), [len(one.rows) for one in shares], axis=0
        )

    def _shares(self, positions: np.ndarray) -> Iterator[_Share]:
        for source, unit, where, rows in self._needed(positions):
            yield _Share(source, self.holding.get(source, unit, self._read), where, rows)

    def _needed(self, positions: np.ndarray) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Dataset, unit, and of `_Share` where and rows: unit by unit, in the order in which they are come to, so that
        a window is done with before the next is begun."""
        for source, places in self._order.places(positions):
            order = np.argsort(places.unit, kind="stable")
            units, first, counts = np.unique(places.unit[order], return_index=True, return_counts=True)
            rows = (places.row * self.datasets[source].reader.views + places.view)[order]
            where = np.searchsorted(positions, places.position[order])
            for place in np.argsort(where[first]).tolist():
                own = slice(first[place], first[place] + counts[place])
                yield source, int(units[place]), where[own], rows[own]

    def needed(self, positions: np.ndarray) -> Iterator[tuple[int, int]]:
        """Dataset and unit, in the order in which `batch` asks for those of these positions."""
        return ((source, unit) for source, unit, _, _ in self._needed(positions))

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

    def _refuse_what_cannot_be(self) -> None:
        """Raises UnmixableError where views of two datasets differ in size, or are no whole patches, where `max_tokens`
        names what is no text, and for a dataset that gives no tokens."""
        first: tuple[str, int] | None = None
        for one, pixels in zip(self.datasets, self.pixels, strict=True):
            if not one.tokenised:
                raise UnmixableError(f"datasets.{one.name}", f"none of {', '.join(one.modalities)} has tokens")
            if pixels is None:
                continue
            size, key = pixels.settings.size, f"datasets.{one.name}.inputs"
            first = first or (one.name, size)
            if size % PATCH:
                raise UnmixableError(key, f"{PIXELS} come in patches of {PATCH} x {PATCH}, and its views have {size}")
            if size != first[1]:
                raise UnmixableError(
                    key, f"its views have {size} {PIXELS} on a side, and those of {first[0]} {first[1]}"
                )
        texts = [name for name, card in self._cards.items() if card.kind["kind"] == TEXT]
        for name, most in self.max_tokens.items():
            if most < 1 or name not in texts:
                told = ", ".join(texts) or "none"
                raise UnmixableError(f"max_tokens.{name}", f"{most}: it takes texts, here {told}, and at least 1 token")

    def _column(self, name: str, keys: np.ndarray, shares: Sequence[_Share], arrays: dict[str, np.ndarray]) -> Column:
        """The modality of a batch; what isn't tokens is put into `arrays`."""
        if name == PIXELS:
            return self._pixel_column(shares, arrays)
        spec, number = self.spec(name), self.modalities.index(name)
        if spec is None:
            return self._embedding_column(name, shares, arrays)
        rows = Rows([(share.held.tokens.get(name), share.rows) for share in shares])
        if spec.type != "text":
            return Column(name, "grid", rows.present, spec.max_length, at=rows.at)
        card, most = self._cards[name], self.most(name)
        if card.kind["kind"] == TEXT:
            texts = partial(_window, rows, stream(keys, _WINDOWS + number), most)
        else:
            texts = partial(_whole, card, rows, stream(keys, _PARTS + number))
        return Column(name, "text", rows.present, most, texts=texts)

    def spec(self, name: str) -> TokenSpec | None:
        """Of the modality's tokens; None of pixels and embeddings, which have none and are never a target."""
        tokens = None if name == PIXELS else self._cards[name].tokens
        return tokens and tokens.spec

    def most(self, name: str) -> int:
        """Tokens of the modality that a sample shows at most, a text's [EOS] among them; of pixels the patches."""
        longest = self.longest(name)
        is_text = name != PIXELS and self._cards[name].kind["kind"] == TEXT
        return min(longest, self.max_tokens.get(name, TEXT_TOKENS)) if is_text else longest

    def longest(self, name: str) -> int:
        """As `most`, whatever `max_tokens` says."""
        if name == PIXELS:
            return (self.size // PATCH) ** 2
        spec = self.spec(name)
        return int(self._cards[name].kind["max_length"]) if spec is None else spec.max_length + (spec.type == "text")

    @property
    def size(self) -> int:
        """Of the pixels on a side, where there are any."""
        return next(pixels.settings.size for pixels in self.pixels if pixels is not None)

    def _pixel_column(self, shares: Sequence[_Share], arrays: dict[str, np.ndarray]) -> Column:
        pictures = [picture for share in shares for picture in share.held.pictures(share.rows)]
        arrays[PIXELS] = stacked(pictures, (self.size, self.size, 3), np.uint8)
        return Column(PIXELS, "pixels", _present(pictures), self.most(PIXELS))

    def _embedding_column(self, name: str, shares: Sequence[_Share], arrays: dict[str, np.ndarray]) -> Column:
        most = self.most(name)
        found = [one for share in shares for one in share.held.embeddings(name, share.rows)]
        lengths = np.array([0 if one is None else len(one) for one in found], np.int64)
        arrays[name] = stacked(found, (most, int(self._cards[name].kind["dim"])), np.float16)

        def texts(rows: np.ndarray) -> Texts:
            return Texts(np.zeros((len(rows), int(lengths.max(initial=0))), np.int64), lengths[rows])

        return Column(name, "embeddings", _present(found), most, texts=texts)

    def _read(self, source: int, unit: int) -> HeldUnit:
        one = self.datasets[source]
        return self.read(self.columns[source], self.units[source][unit], one.stored, self.pixels[source])


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
