"""Reading ahead: the shards of the samples that come next, by threads, while the present ones are masked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np

from ...pipeline.corpus.units import Unit
from .batch import Batch
from .batches import Batches
from .mixed import MixedDataset
from .mixture import Mixture
from .ride_along import is_embeddings
from .shards import ShardStore

_AHEAD = 8192
"""Positions that are looked ahead, if the shortest window has as many, and two steps no more."""


def reading_ahead(batches: Batches) -> Iterator[Batch]:
    """The batches; the shards of those that follow are asked for beforehand, where a store can have them fetched."""
    stride = batches.batch_size * batches.world_size
    mixture = batches.mixture
    asked = [_Asked(one, units, mixture.window) for one, units in zip(mixture.datasets, mixture.units, strict=True)]
    distance = max(2 * stride, min(_AHEAD, _shortest_window(mixture)))
    looked, made = batches.position, iter(batches)
    while True:
        until = batches.position + distance
        for source, places in mixture.places(np.arange(looked, until)):
            asked[source].fetch(np.unique(places.unit).tolist())
        looked = until
        yield next(made)


def _shortest_window(mixture: Mixture) -> int:
    """Of how many positions the window of units is, on average, that is over first."""
    total = sum(one.weight for one in mixture.datasets)
    samples = [sum(unit.count for unit in units) / len(units) for units in mixture.units]
    lengths = [
        mixture.window * mean * one.repeats * total / one.weight
        for one, mean in zip(mixture.datasets, samples, strict=True)
    ]
    return max(1, round(min(lengths)))


class _Asked:
    """The units of a dataset that were asked for, the latest of them: none is asked for again while it is read."""

    def __init__(self, dataset: MixedDataset, units: Sequence[Unit], window: int) -> None:
        self._store, self._columns = dataset.reader.store, dataset.reader.columns
        self._units, self._dataset = units, dataset
        self._most, self._asked = 2 * window, OrderedDict[int, None]()

    def fetch(self, places: Sequence[int]) -> None:
        if not isinstance(self._store, ShardStore):
            return
        self._most = max(self._most, 2 * len(places))
        for place in places:
            if place not in self._asked:
                self._asked[place] = None
                unit = self._units[place]
                self._store.fetch([self._path(unit, name) for name in self._dataset.stored])
            self._asked.move_to_end(place)
        while len(self._asked) > self._most:
            self._asked.popitem(last=False)

    def _path(self, unit: Unit, name: str) -> str:
        embeddings = is_embeddings(self._dataset.reader.cards[name])
        return self._columns.label_path(unit, name) if embeddings else self._columns.token_path(unit, name)
