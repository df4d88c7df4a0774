"""Two datasets beside each other: which modalities are made alike, and how far apart what they hold is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ..corpus.units import Unit, spread
from ..dataset.cards import ModalityCard
from ..dataset.dataset import Dataset
from ..dataset.manifest import DatasetError, changes
from ..dataset.reader import Column
from .distances import Distances

_COLUMNS = 16
"""Columns of units that are kept of each dataset."""


@dataclass
class Compared:
    """One modality of both datasets.

    changes: what differs in how it is made, in words; a modality that is made alike has none. samples: how many of the
    first's were looked for in the second; found: and are there. labels: how many were compared that both have, of each
    view where there are tokens; only: how many the first alone has, and the second alone.
    tokens: whether ids mean the same in both; ids_apart: why they don't, where both have some. same: labels whose ids
    are the same; ids: of all labels; same_ids: those that are the same.
    distances: between the labels, by the names of `DISTANCES`, the first's taken for true; decoded: whether they are
    what tokens decode to, since one of the datasets keeps no labels; apart: why there are none. Where tokens are the
    same, and no labels are kept, there are none either.
    """

    modality: str
    changes: list[str]
    samples: int = 0
    found: int = 0
    labels: int = 0
    only: tuple[int, int] = (0, 0)
    tokens: bool = False
    ids_apart: str = ""
    same: int = 0
    ids: int = 0
    same_ids: int = 0
    distances: dict[str, float] = field(default_factory=dict)
    decoded: bool = False
    apart: str = ""


def compare_datasets(one: Dataset, other: Dataset, modalities: Sequence[str], samples: int) -> Iterator[Compared]:
    """The modalities that both have, one after the other. samples: how many are read of each, about, from all over the
    first dataset; those of one key are compared, and of these as many views as both have.

    Raises DatasetError for a shard that can't be read.
    """
    for name in modalities:
        cards = one.manifest.modalities[name], other.manifest.modalities[name]
        sides = _Side(one, name), _Side(other, name)
        have_tokens = all(side.has(False) for side in sides)
        apart = _ids_apart(*cards) if have_tokens else ""
        found = Compared(name, changes(*cards), tokens=have_tokens and not apart, ids_apart=apart)
        if found.tokens:
            _compare_tokens(found, *sides, samples)
        if not found.tokens or found.same < found.labels or all(side.has(True) for side in sides):
            _compare_labels(found, *sides, samples)
        yield found


def _ids_apart(one: ModalityCard, other: ModalityCard) -> str:
    """Why ids don't mean the same in both; "" where they do. Both have tokens."""
    vocabularies = {card.tokens.vocabulary.digest for card in (one, other) if card.tokens and card.tokens.vocabulary}
    if one.tokenizer_digest == other.tokenizer_digest:
        return "the text vocabularies are two" if len(vocabularies) > 1 else ""
    asked = [(card.kind, card.tokens and card.tokens.parts()) for card in (one, other)]
    return "the tokenizers were fitted to different samples" if asked[0] == asked[1] else "the tokenizers are two"


class _Side:
    """One modality of one dataset."""

    def __init__(self, dataset: Dataset, modality: str) -> None:
        self.dataset, self.modality = dataset, modality
        self.card = dataset.manifest.modalities[modality]
        self.units = dataset.reader.finished[modality]
        self.column = lru_cache(_COLUMNS)(self._column)

    def _column(self, unit: Unit, label: bool) -> Column:
        return self.dataset.reader.column(unit, self.modality, label)

    def has(self, label: bool) -> bool:
        """Whether labels are kept, or tokens."""
        return self.card.keeps_labels if label else self.card.keeps_tokens and self.card.fitted

    def per_sample(self, label: bool) -> int:
        return self.card.labels_per_sample(self.dataset.views) if label else self.dataset.views

    def find(self, unit: Unit, index: int, key: str, label: bool) -> tuple[Column, int] | None:
        """The column with a sample, and its place there: most often the same as in the other dataset."""
        if unit in self.units:
            column = self.column(unit, label)
            if index < len(column.keys) and column.keys[index] == key:
                return column, index
        place = self.dataset.find(key)
        return (self.column(place[0], label), place[1]) if place and place[0] in self.units else None


def _pairs(one: _Side, other: _Side, samples: int, label: bool, found: Compared | None = None) -> Iterator[Any]:
    """Pairs of values that both have: labels, or tokens. found: where they, and what lies between them, are counted."""
    found = found or Compared(one.modality, [])
    missing = [0, 0]
    views = min(one.per_sample(label), other.per_sample(label))
    for unit in _spread_units(one.units, samples):
        column = one.column(unit, label)
        for index, key in enumerate(column.keys):
            found.samples += 1
            there = other.find(unit, index, key, label)
            if there is None:
                continue
            found.found += 1
            for view in range(views):
                pair = column.value(index, view), there[0].value(there[1], view)
                if pair[0] is not None and pair[1] is not None:
                    found.labels += 1
                    yield pair
                elif pair[0] is not None or pair[1] is not None:
                    missing[pair[0] is None] += 1
    found.only = missing[0], missing[1]


def _spread_units(units: Iterable[Unit], samples: int) -> list[Unit]:
    """Units that hold about so many samples, from all over the dataset."""
    filled = sorted(unit for unit in units if unit.count)
    per_unit = sum(unit.count for unit in filled) / max(1, len(filled))
    return spread(filled, math.ceil(samples / max(1.0, per_unit)))


def _compare_tokens(found: Compared, one: _Side, other: _Side, samples: int) -> None:
    for first, second in _pairs(one, other, samples, False, found):
        equal = int((first == second).sum()) if len(first) == len(second) else 0
        found.same += equal == len(first) == len(second)
        found.same_ids += equal
        found.ids += max(len(first), len(second))


def _compare_labels(found: Compared, one: _Side, other: _Side, samples: int) -> None:
    if one.card.kind != other.card.kind:
        found.apart = "labels of another kind"
        return
    found.decoded = not (one.has(True) and other.has(True))
    if found.decoded and not (one.has(False) and other.has(False)):
        one_has = one.has(False) or other.has(False)
        found.apart = "one keeps tokens alone, the other labels" if one_has else "tokenizers aren't fitted yet"
        return
    distances = Distances(one.card.label_kind)
    try:
        for first, second in _pairs(one, other, samples, not found.decoded, None if found.tokens else found):
            if found.decoded:
                first = one.dataset.decode(found.modality, first)
                second = other.dataset.decode(found.modality, second)
            distances.add(first, second)
    except DatasetError:
        raise
    except ValueError as error:  # as of maps of different sizes
        found.apart = str(error)
        return
    found.distances = distances.means()
