"""A mixture of datasets as batches: any positions of the run's order, read, joined and masked."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.dataset.reader import DatasetReader
from ...tokenizers.contract.special_tokens import EOS, FIRST_SENTINEL
from ...tokenizers.contract.token_spec import TokenSpec
from .draws import keys_of, stream
from .masking import Column, Masked, Scheme, Texts, mask
from .order import Order, Source
from .parts import instance_starts, pair_chunks, shuffled
from .unit_tokens import Rows, Tokens, read_unit

_PARTS = 1 << 40
"""The stream that says in which order a sample's instances stand; those below are masking's."""


@dataclass(frozen=True)
class _Share:
    """What a unit gives to a batch. where: int64 (k,), where its samples stand there; rows: int64 (k,), in the unit."""

    tokens: Mapping[str, Tokens]
    where: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class MixedDataset:
    """A dataset as it is mixed in: some modalities of it, with the weight and repeats of `Source`."""

    name: str
    reader: DatasetReader
    modalities: Sequence[str]
    weight: float = 1.0
    repeats: int = 1


@dataclass(frozen=True)
class Batch:
    """Samples as a model takes them. positions: int64 (n,), in the run's order. modalities: the names that
    `Masked.modality` counts."""

    positions: np.ndarray
    modalities: tuple[str, ...]
    inputs: Masked
    targets: Masked


@dataclass
class Mixture:
    """Datasets with the order and the masking of a run. input_tokens, target_tokens: as of `masking.mask`."""

    datasets: Sequence[MixedDataset]
    schemes: Sequence[Scheme]
    input_tokens: tuple[int, int]
    target_tokens: tuple[int, int]
    seed: int = 0
    window: int = 16
    modalities: tuple[str, ...] = field(init=False)
    _read: OrderedDict[tuple[int, int], dict[str, Tokens]] = field(init=False, default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self._units = [one.reader.units(one.modalities) for one in self.datasets]
        self._columns = [one.reader.columns for one in self.datasets]
        self.modalities = tuple(dict.fromkeys(name for one in self.datasets for name in one.modalities))
        self._cards = {name: self._card(name) for name in self.modalities}
        sources = [
            Source(one.name, [unit.count for unit in units], one.weight, one.repeats, one.reader.views)
            for one, units in zip(self.datasets, self._units, strict=True)
        ]
        self._order = Order(sources, self.seed, self.window)

    @property
    def digest(self) -> str:
        """SHA-256 of all that says which sample stands where: a position means the same to mixtures that share it."""
        told = [
            [one.name, one.weight, one.repeats, one.reader.views, [unit.name for unit in units]]
            for one, units in zip(self.datasets, self._units, strict=True)
        ]
        return hashlib.sha256(json.dumps([self.seed, self.window, told]).encode()).hexdigest()

    def batch(self, positions: np.ndarray) -> Batch:
        """The samples at these positions, int64 (n,) in rising order. Raises what `read_unit` raises."""
        shares = list(self._units_of(positions))
        order = np.concatenate([share.where for share in shares] or [np.arange(0)])
        keys = keys_of(self.seed, positions[order])
        columns = [self._column(name, keys, shares) for name in self.modalities]
        masked = mask(keys, columns, self.schemes, self.input_tokens, self.target_tokens, FIRST_SENTINEL)
        back = np.argsort(order)
        return Batch(positions, self.modalities, *(side.rows(back) for side in masked))

    def _units_of(self, positions: np.ndarray) -> Iterator[_Share]:
        """By unit, so that what is read side by side is read from one place."""
        for source, places in self._order.places(positions):
            order = np.argsort(places.unit, kind="stable")
            units, first = np.unique(places.unit[order], return_index=True)
            rows = (places.row * self.datasets[source].reader.views + places.view)[order]
            where = np.searchsorted(positions, places.position[order])
            ends = [*first[1:].tolist(), len(order)]
            for unit, begin, end in zip(units.tolist(), first.tolist(), ends, strict=True):
                yield _Share(self._tokens(source, unit), where[begin:end], rows[begin:end])

    def _card(self, name: str) -> ModalityCard:
        """Of the modality, which must be the same in all datasets that have it."""
        first: tuple[MixedDataset, ModalityCard] | None = None
        for one in self.datasets:
            if name not in one.modalities:
                continue
            card = one.reader.cards[name]
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

    def _column(self, name: str, keys: np.ndarray, shares: Sequence[_Share]) -> Column:
        spec = _spec(self._cards[name])
        rows = Rows([(share.tokens.get(name), share.rows) for share in shares], spec.max_length)
        if spec.type != "text":
            return Column(name, "grid", rows.present, spec.max_length, at=rows.at)
        keys = stream(keys, _PARTS + self.modalities.index(name))
        texts = partial(_texts, self._cards[name], rows, keys)
        return Column(name, "text", rows.present, spec.max_length + 1, texts=texts)

    def _tokens(self, source: int, unit: int) -> Mapping[str, Tokens]:
        """Of a unit, the latest of which are kept: as many as are read side by side, and those before."""
        place = (source, unit)
        if place not in self._read:
            one = self.datasets[source]
            self._read[place] = read_unit(self._columns[source], self._units[source][unit], one.modalities)
            if len(self._read) > 2 * self.window * len(self.datasets):
                self._read.popitem(last=False)
        self._read.move_to_end(place)
        return self._read[place]


@dataclass
class Batches:
    """The batches of one rank, on and on. Of each global batch, `batch_size` samples for each of `world_size` ranks,
    it makes its own part.

    The state is the position where the next global batch begins: any number of ranks goes on from there.
    """

    mixture: Mixture
    batch_size: int
    rank: int = 0
    world_size: int = 1
    position: int = 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            first = self.position + self.rank * self.batch_size
            batch = self.mixture.batch(np.arange(first, first + self.batch_size))
            self.position += self.world_size * self.batch_size
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "mixture": self.mixture.digest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises DatasetError where the state is of another mixture."""
        if state["mixture"] != self.mixture.digest:
            raise DatasetError(
                "the state is of another mixture: datasets, their units, weights, repeats, seed or window differ, and "
                "the position would mean other samples. Give the datasets as they were, or begin anew"
            )
        self.position = int(state["position"])


def _texts(card: ModalityCard, rows: Rows, keys: np.ndarray, chosen: np.ndarray) -> Texts:
    """With the instances in an order of its own for each sample, and [EOS] at the end."""
    ids, lengths = rows.padded(chosen, 1), rows.lengths[chosen]
    if card.kind["kind"] == "instances":
        starts = instance_starts(ids, 1 if card.kind.get("pose") == "smpl" or card.kind.get("masks") else 0)
        ids = shuffled(keys[chosen], ids, lengths, starts)
    ids[np.arange(len(ids)), lengths] = EOS
    assert card.tokens is not None
    return Texts(ids, lengths + 1, pair_chunks(ids) if card.tokens.tokenizer == "record" else None)


def _identity(card: ModalityCard) -> tuple[Any, ...]:
    """What says which token an id is."""
    assert card.tokens is not None
    return card.tokens.files, card.tokens.spec, card.tokens.vocabulary and card.tokens.vocabulary.digest


def _spec(card: ModalityCard) -> TokenSpec:
    assert card.tokens is not None
    assert card.tokens.spec is not None
    return card.tokens.spec
