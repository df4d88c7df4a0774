"""In which order the units of a dataset come in an epoch, found at any place without going through the others.

Units differ in size, and where the n-th begins is the sum of all before it; so an order that is drawn anew for each
epoch would have to be summed up anew. Instead places are drawn once, each for a unit of one size, and summed up once.
In each epoch every place takes one of the units of its size, by a permutation that is evaluated where it is asked for,
and runs of places change theirs. There are at most RUNS of them, so with as many units or fewer each is one unit, and
any order comes up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .draws import bits, permuted, stream

RUNS = 4096

_PLACES, _RUNS, _SIZES = range(3)
"""Streams of a key's draws."""


class UnitOrder:
    """counts: int64 (units,), samples of each. key: uint64 (1,).

    Making one takes time and memory in proportion to the units; what it is asked then, to their logarithm.
    """

    def __init__(self, counts: np.ndarray, key: np.ndarray) -> None:
        self._key = key
        self._sizes = counts[np.argsort(bits(stream(key, _PLACES), len(counts))[0], kind="stable")]
        self._ends = np.cumsum(self._sizes)
        self._by_size = np.argsort(counts, kind="stable")
        sizes = counts[self._by_size]
        self._first = np.searchsorted(sizes, self._sizes)  # of the units of each place's size, in _by_size
        self._alike = np.searchsorted(sizes, self._sizes, side="right") - self._first
        self._rank = np.empty(len(counts), np.int64)  # of each place among those of its size
        by_size = np.argsort(self._sizes, kind="stable")
        self._rank[by_size] = np.arange(len(counts)) - self._first[by_size]
        self._run_ends = np.append(np.arange(0, len(counts), -(-len(counts) // RUNS))[1:], len(counts))

    def epoch(self, number: int) -> EpochOrder:
        key = stream(self._key, number)
        runs = np.argsort(bits(stream(key, _RUNS), len(self._run_ends))[0], kind="stable")
        ends = self._run_ends[runs]
        begins = np.append(0, self._run_ends)[runs]
        samples = np.append(0, self._ends)
        first = samples[begins]
        return EpochOrder(self, key, begins, np.cumsum(ends - begins), first, np.cumsum(samples[ends] - first))

    def places_of(self, samples: np.ndarray) -> np.ndarray:
        """The places that samples, int64 (n,) counted place after place, lie in."""
        return np.searchsorted(self._ends, samples, side="right")

    def begins(self, places: np.ndarray) -> np.ndarray:
        return self._ends[places] - self._sizes[places]

    def units(self, key: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Which take these places in the epoch of that key."""
        keys = stream(stream(key, _SIZES), self._sizes[places])
        return self._by_size[self._first[places] + permuted(keys, self._rank[places], self._alike[places])]


@dataclass(frozen=True)
class EpochOrder:
    """The units of one epoch. Of its runs, int64 (runs,) each: first place, and, counted in the epoch, the places until
    their end; first sample, and the samples until their end."""

    order: UnitOrder
    key: np.ndarray
    places: np.ndarray
    place_ends: np.ndarray
    samples: np.ndarray
    sample_ends: np.ndarray

    def ranks(self, samples: np.ndarray) -> np.ndarray:
        """The how-manieth unit of the epoch each of its samples, int64 (n,), lies in."""
        run = np.searchsorted(self.sample_ends, samples, side="right")
        place = self.order.places_of(samples - _before(self.sample_ends)[run] + self.samples[run])
        return place - self.places[run] + _before(self.place_ends)[run]

    def begins(self, ranks: np.ndarray) -> np.ndarray:
        """The epoch's sample that is the first of each of these units."""
        run, places = self._places(ranks)
        return self.order.begins(places) - self.samples[run] + _before(self.sample_ends)[run]

    def units(self, ranks: np.ndarray) -> np.ndarray:
        return self.order.units(self.key, self._places(ranks)[1])

    def _places(self, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        run = np.searchsorted(self.place_ends, ranks, side="right")
        return run, ranks - _before(self.place_ends)[run] + self.places[run]


def _before(ends: np.ndarray) -> np.ndarray:
    return np.append(0, ends[:-1])
