"""Order: which row of which dataset stands at each position of a training run.

A pure function of the seed, the datasets' units and the position, so that a run is told where it is by one number, on
any number of ranks and workers. Each sample of a dataset comes once an epoch, times its repeats. Units are taken in an
order drawn for the epoch (see unit_order), a window of them side by side, each from its first row to its last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise

import numpy as np

from .draws import below, stream, uniforms
from .unit_order import EpochOrder, UnitOrder

PERIOD = 1000
"""Positions after which the datasets' turns are repeated: so finely are weights told apart."""

_UNITS, _ROWS, _VIEWS = range(3)
"""Streams of a source's, an epoch's and a sample's draws."""


@dataclass(frozen=True)
class Era:
    """From which epoch on a dataset has so many units: the first of its list."""

    epoch: int
    units: int


@dataclass(frozen=True)
class Source:
    """A dataset as it is mixed in. counts: samples of each unit; weight: its share among all, in any unit of measure;
    repeats: how often each sample comes in an epoch; views: how many each has; eras: how it grew, in order, the first
    from epoch 0; without any it has all of its units from the beginning."""

    name: str
    counts: Sequence[int]
    weight: float = 1.0
    repeats: int = 1
    views: int = 1
    eras: Sequence[Era] = ()


@dataclass(frozen=True)
class Places:
    """Where the samples of some positions lie, int64 (n,) each. unit: the place in the source's list of units."""

    position: np.ndarray
    epoch: np.ndarray
    unit: np.ndarray
    row: np.ndarray
    view: np.ndarray


def turns(weights: Sequence[float]) -> np.ndarray:
    """int64 (PERIOD,): whose turn it is at each position of a period, the turns of each evenly apart.

    Raises ValueError, naming the place, for a weight that isn't above 0 or too small to get a turn.
    """
    shares = np.array(weights, np.float64)
    for place, weight in enumerate(weights):
        if not (np.isfinite(weight) and weight > 0):
            raise ValueError(f"weight {place} is {weight}; it must be above 0")
    exact = shares / shares.sum() * PERIOD
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: PERIOD - counts.sum()]] += 1
    if not counts.all():
        place = int(counts.argmin())
        raise ValueError(f"weight {place} is {weights[place]:g} of {shares.sum():g}: less than one turn in {PERIOD:,}")
    whose = np.repeat(np.arange(len(weights)), counts)
    number = np.arange(PERIOD) - np.repeat(np.cumsum(counts) - counts, counts)
    return whose[np.argsort((number + 0.5) / counts[whose], kind="stable")]


@dataclass(frozen=True)
class Order:
    """The positions of a run. window: units of a dataset that are read side by side."""

    sources: Sequence[Source]
    seed: int = 0
    window: int = 16
    _turns: np.ndarray = field(init=False)
    _before: np.ndarray = field(init=False)
    _epochs: list[_Eras] = field(init=False)

    def __post_init__(self) -> None:
        whose = turns([source.weight for source in self.sources])
        own = whose[:, None] == np.arange(len(self.sources))
        object.__setattr__(self, "_turns", whose)
        object.__setattr__(self, "_before", np.concatenate([np.zeros((1, own.shape[1]), int), np.cumsum(own, axis=0)]))
        epochs = [_Eras(source, self.seed, place, self.window) for place, source in enumerate(self.sources)]
        object.__setattr__(self, "_epochs", epochs)

    def places(self, positions: np.ndarray) -> Iterator[tuple[int, Places]]:
        """The sources that have positions among these, int64 (n,) in rising order, with where those samples lie."""
        rounds, within = np.divmod(positions, PERIOD)
        for place, epochs in enumerate(self._epochs):
            own = self._turns[within] == place
            if own.any():
                number = rounds[own] * self._before[-1, place] + self._before[within[own], place]
                yield place, epochs.places(positions[own], number)

    def next_epoch(self, source: int, position: int) -> int:
        """The first epoch of a source of which no sample has come before a position."""
        rounds, within = divmod(position, PERIOD)
        return self._epochs[source].next_epoch(int(rounds * self._before[-1, source] + self._before[within, source]))


class _Eras:
    """One source's samples, era after era. starts: of each the number of its first sample."""

    def __init__(self, source: Source, seed: int, place: int, window: int) -> None:
        self._eras = list(source.eras) or [Era(0, len(source.counts))]
        self._epochs = [
            _Epochs(replace(source, counts=source.counts[: era.units]), seed, place, window) for era in self._eras
        ]
        lengths = [sum(source.counts[: era.units]) * source.repeats for era in self._eras]
        lasted = [
            (new.epoch - old.epoch) * length for (old, new), length in zip(pairwise(self._eras), lengths, strict=False)
        ]
        self._lengths, self._starts = lengths, np.cumsum([0, *lasted])

    def places(self, positions: np.ndarray, numbers: np.ndarray) -> Places:
        """As of `_Epochs`."""
        which = np.searchsorted(self._starts, numbers, side="right") - 1
        found = [
            self._epochs[one].places(positions[which == one], self._counted(numbers[which == one], int(one)))
            for one in np.unique(which)
        ]
        joined = {part.name: np.concatenate([getattr(one, part.name) for one in found]) for part in fields(Places)}
        return Places(**joined)

    def next_epoch(self, number: int) -> int:
        era = int(np.searchsorted(self._starts, number, side="right")) - 1
        return -(-int(self._counted(np.array(number), era)) // self._lengths[era])

    def _counted(self, numbers: np.ndarray, era: int) -> np.ndarray:
        """As if the era had lasted from the beginning."""
        return numbers - self._starts[era] + self._eras[era].epoch * self._lengths[era]


class _Epochs:
    """One source's samples, epoch after epoch. Keeps the latest two epochs' orders and the latest two windows' rows."""

    def __init__(self, source: Source, seed: int, place: int, window: int) -> None:
        self._source, self._window = source, window
        self._counts = np.asarray(source.counts, np.int64) * source.repeats
        self._length = int(self._counts.sum())
        if not self._length or (self._counts < 0).any():
            raise ValueError(f"{source.name}: has no samples")
        self._key = stream(np.array([seed & (1 << 64) - 1], np.uint64), place)
        self._order = UnitOrder(self._counts, stream(self._key, _UNITS))
        self._epochs: dict[int, EpochOrder] = {}
        self._rows: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def places(self, positions: np.ndarray, numbers: np.ndarray) -> Places:
        """numbers: int64 (n,), of the source's own samples since the run began, in rising order."""
        epoch, within = np.divmod(numbers, self._length)
        unit, row = np.empty_like(within), np.empty_like(within)
        for one in np.unique(epoch).tolist():
            here = np.flatnonzero(epoch == one)
            window = self._epoch(one).ranks(within[here]) // self._window
            for each in np.unique(window).tolist():
                those = here[window == each]
                own, rows = self._rows_of(one, each)
                step = within[those] - self._epoch(one).begins(np.array([each * self._window]))
                unit[those], row[those] = own[step], rows[step]
        first = below(stream(self._sample_keys(unit, row), _VIEWS), np.full(len(unit), self._source.views))
        times = epoch * self._source.repeats + row // self._once(unit)
        return Places(positions, epoch, unit, row % self._once(unit), (first + times) % self._source.views)

    def _once(self, unit: np.ndarray) -> np.ndarray:
        return self._counts[unit] // self._source.repeats

    def _sample_keys(self, unit: np.ndarray, row: np.ndarray) -> np.ndarray:
        return stream(stream(self._key, unit), row % self._once(unit))

    def _epoch(self, number: int) -> EpochOrder:
        if number not in self._epochs:
            self._epochs = {**dict(list(self._epochs.items())[-1:]), number: self._order.epoch(number)}
        return self._epochs[number]

    def _rows_of(self, epoch: int, window: int) -> tuple[np.ndarray, np.ndarray]:
        """The samples of a window in their order: of which unit, and which of its rows, counted on through repeats."""
        if (epoch, window) not in self._rows:
            first = window * self._window
            own = self._epoch(epoch).units(np.arange(first, min(first + self._window, len(self._counts))))
            counts = self._counts[own]
            unit = np.repeat(own, counts)
            row = np.arange(len(unit)) - np.repeat(np.cumsum(counts) - counts, counts)
            key = stream(stream(stream(self._key, epoch), _ROWS), window)
            when = (row + uniforms(key, len(unit))[0]) / np.repeat(counts, counts)
            chosen = np.argsort(when, kind="stable")
            self._rows = {**dict(list(self._rows.items())[-1:]), (epoch, window): (unit[chosen], row[chosen])}
        return self._rows[epoch, window]
