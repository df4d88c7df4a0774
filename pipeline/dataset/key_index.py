"""Where each key of a dataset is, without a database: a number per sample, counted through the units."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from ..corpus.units import Unit
from ..storage.read_ahead import in_order


class KeyIndex:
    """Finds the unit of a key and its place there; of keys that occur twice, the first."""

    def __init__(self, units: Sequence[Unit], read_keys: Callable[[Unit], list[str]]) -> None:
        self._units = units
        self._starts = list(accumulate((unit.count for unit in units), initial=0))
        self._at: dict[str, int] = {}
        for start, keys in zip(self._starts, in_order(read_keys, units, threads=16), strict=False):
            for at, key in enumerate(keys, start):
                self._at.setdefault(key, at)

    def find(self, key: str) -> tuple[Unit, int] | None:
        at = self._at.get(key)
        if at is None:
            return None
        place = bisect_right(self._starts, at) - 1
        return self._units[place], at - self._starts[place]
