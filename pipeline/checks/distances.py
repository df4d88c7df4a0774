"""How far labels of two datasets lie apart: by the measures of tokenizers, and by two that miss no difference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...labelers.contract.kinds import Image, Kind
from ...tokenizers.measures.reconstruction import MEASURES, ErrorSum, Measure

DISTANCES: dict[str, Measure] = {
    "identical": Measure("identical", "share of labels that are the same in all", "higher", "%"),
    "difference": Measure("difference", "length of the difference, as a share of the first's", "lower", "%"),
    **MEASURES,
}
"""By their names in what `Distances` gives."""


class Distances:
    """Means over pairs of labels of one kind.

    Tokenizers standardise what they are given and fold case, and so do their measures: depth is aligned in scale, of
    vectors the angle alone counts. Two datasets may differ in just that, so it is told, too, how many labels are
    identical, and of numbers how long the difference is.
    """

    def __init__(self, kind: Kind) -> None:
        self._numbers = not (isinstance(kind, Image) and kind.content == "classes")
        self._errors = ErrorSum(kind)
        self._identical = 0
        self._differences: list[float] = []

    def add(self, first: Any, second: Any) -> None:
        """Raises ValueError as of ErrorSum."""
        self._errors.add(first, second)
        arrays = isinstance(first, np.ndarray) and isinstance(second, np.ndarray)
        same = np.array_equal(first, second, equal_nan=True) if arrays else first == second
        self._identical += bool(same)
        if arrays and self._numbers and (found := 0.0 if same else relative_l2(first, second)) is not None:
            self._differences.append(found)

    def means(self) -> dict[str, float]:
        """By the names in DISTANCES; empty where nothing was added."""
        if not self._errors.labels:
            return {}
        found = {"identical": self._identical / self._errors.labels}
        if self._differences:
            found["difference"] = math.fsum(self._differences) / len(self._differences)
        return found | self._errors.means()


def relative_l2(first: np.ndarray, second: np.ndarray) -> float | None:
    """|second - first| / |first|, of the values that both know; None where those of the first are all 0."""
    both = np.isfinite(first) & np.isfinite(second)
    known = first[both].astype(np.float64)
    length = float(np.linalg.norm(known))
    return float(np.linalg.norm(second[both] - known)) / length if length else None
