"""A mixture of datasets as batches: any positions of the run's order, read, joined and masked."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.dataset.reader import ColumnReader, DatasetReader
from ...tokenizers.contract.special_tokens import EOS, FIRST_SENTINEL
from ...tokenizers.contract.token_spec import TokenSpec
from .draws import keys_of, stream
from .masking import Column, Masked, Scheme, mask
from .order import Era, Order, Places, Source
from .parts import instance_starts, pair_chunks, shuffled
from .unit_tokens import Tokens, gather, read_unit

_PARTS = 1 << 40
"""The stream that says in which order a sample's instances stand; those below are masking's."""


@dataclass(frozen=True)
class MixedDataset:
    """A dataset as it is mixed in: some modalities of it, with the weight and repeats of `Source`.

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

    @property
    def shown_views(self) -> int:
        return self.views or self.reader.views


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
    """Datasets with the order and the masking of a run. input_tokens, target_tokens: as of `masking.mask`. read: as
    `read_unit`, and by default that."""

    datasets: Sequence[MixedDataset]
    schemes: Sequence[Scheme]
    input_tokens: tuple[int, int]
    target_tokens: tuple[int, int]
    seed: int = 0
    window: int = 16
    read: Callable[[ColumnReader, Unit, Sequence[str]], dict[str, Tokens]] = read_unit
    modalities: tuple[str, ...] = field(init=False)
    units: list[Sequence[Unit]] = field(init=False)
    _read: OrderedDict[tuple[int, int], dict[str, Tokens]] = field(init=False, default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.units = [one.reader.units(one.modalities) if one.units is None else one.units for one in self.datasets]
        self._columns = [one.reader.columns for one in self.datasets]
        self.modalities = tuple(dict.fromkeys(name for one in self.datasets for name in one.modalities))
        self._cards = {name: self._card(name) for name in self.modalities}
        sources = [
            Source(one.name, [unit.count for unit in units], one.weight, one.repeats, one.shown_views, one.eras)
            for one, units in zip(self.datasets, self.units, strict=True)
        ]
        self._order = Order(sources, self.seed, self.window)

    @property
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

    def batch(self, positions: np.ndarray) -> Batch:
        """The samples at these positions, int64 (n,) in rising order. Raises what `read_unit` raises."""
        keys = keys_of(self.seed, positions)
        found = [(source, places) for source, places in self.places(positions)]
        source_of = np.zeros(len(positions), np.int64)
        for source, places in found:
            source_of[np.searchsorted(positions, places.position)] = source
        columns = [self._in_roles(self._column(name, keys, positions, found), source_of) for name in self.modalities]
        masked = mask(keys, columns, self.schemes, self.input_tokens, self.target_tokens, FIRST_SENTINEL)
        return Batch(positions, self.modalities, *masked)

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

    def _column(
        self, name: str, keys: np.ndarray, positions: np.ndarray, found: Sequence[tuple[int, Places]]
    ) -> Column:
        rows: list[tuple[Tokens, np.ndarray]] = []
        where: list[np.ndarray] = []
        for source, places in found:
            if name not in self.datasets[source].modalities:
                continue
            views = self.datasets[source].reader.views
            for unit in np.unique(places.unit):
                here = places.unit == unit
                rows.append((self._tokens(source, int(unit))[name], places.row[here] * views + places.view[here]))
                where.append(np.searchsorted(positions, places.position[here]))
        spec = _spec(self._cards[name])
        is_text = spec.type == "text"
        count, present = len(positions), np.zeros(len(positions), bool)
        if not rows:
            empty = np.zeros((count, spec.length or 1), np.int32)
            return Column(name, "text" if is_text else "grid", empty, np.zeros(count, int), present, spec.max_length)
        own, own_lengths, own_present = gather(rows, spec.max_length, int(is_text))
        at = np.concatenate(where)
        ids, lengths = np.zeros((count, own.shape[1]), np.int32), np.zeros(count, np.int64)
        ids[at], lengths[at], present[at] = own, own_lengths, own_present
        if not is_text:
            return Column(name, "grid", ids, lengths, present, spec.max_length)
        return self._text(name, keys, ids, lengths, present, spec.max_length)

    def _text(
        self, name: str, keys: np.ndarray, ids: np.ndarray, lengths: np.ndarray, present: np.ndarray, longest: int
    ) -> Column:
        """With the instances in an order of its own for each sample, and [EOS] at the end."""
        card = self._cards[name]
        assert card.tokens is not None
        chunks = None
        if card.kind["kind"] == "instances":
            starts = instance_starts(ids, 1 if card.kind.get("pose") == "smpl" or card.kind.get("masks") else 0)
            ids = shuffled(stream(keys, _PARTS + self.modalities.index(name)), ids, lengths, starts)
        ids[np.flatnonzero(present), lengths[present]] = EOS
        if card.tokens.tokenizer == "record":
            chunks = pair_chunks(ids)
        return Column(name, "text", ids, lengths + present, present, longest + 1, chunks)

    def _tokens(self, source: int, unit: int) -> Mapping[str, Tokens]:
        """Of a unit, the latest of which are kept: as many as are read side by side, and those before."""
        place = (source, unit)
        if place not in self._read:
            one = self.datasets[source]
            self._read[place] = self.read(self._columns[source], self.units[source][unit], one.modalities)
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


def _identity(card: ModalityCard) -> tuple[Any, ...]:
    """What says which token an id is."""
    assert card.tokens is not None
    return card.tokens.files, card.tokens.spec, card.tokens.vocabulary and card.tokens.vocabulary.digest


def _spec(card: ModalityCard) -> TokenSpec:
    assert card.tokens is not None
    assert card.tokens.spec is not None
    return card.tokens.spec
