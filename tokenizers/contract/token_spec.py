"""TokenSpec: what tokens of a modality look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class TokenSpec:
    """What a trainer needs to know of a modality's tokens.

    vocabulary: ids lie in [0, vocabulary). length: tokens per sample when fixed, else None. max_length: the most that
    `encode` gives. grid: (rows, columns) when the tokens are laid out in space, row by row.
    """

    type: Literal["grid", "vector", "text"]
    vocabulary: int
    length: int | None
    max_length: int
    grid: tuple[int, int] | None = None

    @property
    def dtype(self) -> np.dtype:
        """uint16 wherever the ids fit, uint32 past 65,535."""
        return np.dtype(np.uint16 if self.vocabulary <= 2**16 else np.uint32)
