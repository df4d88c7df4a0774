"""Reading ahead: the shards of the samples that come next, by threads, while the present ones are masked."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from .batch import Batch
from .batches import Batches
from .mixture import Mixture
from .ride_along import is_embeddings
from .shards import ShardStore

_AHEAD = 8192
"""Positions that are looked ahead, if the shortest window has as many, and otherwise the batches that are made next."""


def reading_ahead(batches: Batches) -> Generator[Batch, None, None]:
    """The batches; the shards of those that follow are asked for beforehand, where a store can have them fetched: those
    alone that this rank will read."""
    try:
        while True:
            yield from _until_a_state_is_loaded(batches)
    finally:
        for one in batches.mixture.datasets:
            if isinstance(one.reader.store, ShardStore):
                one.reader.store.forget()


def _until_a_state_is_loaded(batches: Batches) -> Iterator[Batch]:
    mixture, made = batches.mixture, iter(batches)
    distance = max(2 * batches.span, min(_AHEAD, _shortest_window(mixture)))
    foreseen, asked = mixture.holding.foreseen(), batches.position

    def fetch(source: int, unit: int) -> None:
        _fetch(mixture, source, unit)

    while True:
        while asked < batches.position + distance:
            for source, unit in mixture.needed(batches.block(asked)):
                foreseen.get(source, unit, fetch)
            asked += batches.span
        batch = next(made)
        position = batches.position
        yield batch
        if batches.position != position:
            return


def _shortest_window(mixture: Mixture) -> int:
    """Of how many positions the window of units is, on average, that is over first."""
    total = sum(one.weight for one in mixture.datasets)
    samples = [sum(unit.count for unit in units) / len(units) for units in mixture.units]
    lengths = [
        mixture.window * mean * one.repeats * total / one.weight
        for one, mean in zip(mixture.datasets, samples, strict=True)
    ]
    return max(1, round(min(lengths)))


def _fetch(mixture: Mixture, source: int, unit: int) -> None:
    one, columns = mixture.datasets[source], mixture.columns[source]
    if isinstance(one.reader.store, ShardStore):
        which = mixture.units[source][unit]
        embedded = [name for name in one.stored if is_embeddings(one.reader.cards[name])]
        labels = [columns.label_path(which, name) for name in embedded]
        one.reader.store.fetch([*(columns.token_path(which, name) for name in one.tokenised), *labels])
