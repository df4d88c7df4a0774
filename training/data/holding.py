"""What is kept in memory of each dataset of a mixture: the units that were asked for last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Holding(Generic[T]):
    """As many units of each dataset as are read side by side; those of earlier windows aren't asked for again in the
    epoch. What is held follows from what is asked for, so another one that is asked the same knows of each unit whether
    it will have to be read."""

    def __init__(self, datasets: int, window: int) -> None:
        self._window = window
        self._held: list[OrderedDict[int, T]] = [OrderedDict() for _ in range(datasets)]

    def get(self, source: int, unit: int, read: Callable[[int, int], T]) -> T:
        """The unit of a dataset, both by their places; `read` where it isn't held."""
        held = self._held[source]
        if unit not in held:
            if len(held) >= self._window:
                held.popitem(last=False)
            held[unit] = read(source, unit)
        held.move_to_end(unit)
        return held[unit]

    def foreseen(self) -> Holding[None]:
        """One that holds the same now, to be asked beforehand for what this one will be asked for."""
        made = Holding[None](len(self._held), self._window)
        made._held = [OrderedDict.fromkeys(held) for held in self._held]
        return made
