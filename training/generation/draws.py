"""Where chance comes into generation. What is drawn for a sample is a function of its key, the target, the step and the
place: not of the samples beside it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from ..data.draws import keys_of, shuffles, stream, uniforms
from .sampling import drawn


class Draws(Protocol):
    def tokens(self, target: str, step: int, chances: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """int64 (n, l): a token each by chances (n, l, vocabulary), for places (n, l) of an image or a text."""
        ...

    def order(self, target: str, step: int, places: int) -> torch.Tensor:
        """int64 (n, places): in which order an image's places are looked at."""
        ...


class SeededDraws:
    """Draws of n samples. numbers: what tells a sample from others, by default its place among them."""

    def __init__(self, seed: int, samples: int, numbers: Sequence[int] | None = None) -> None:
        self._keys = keys_of(seed, np.array(range(samples) if numbers is None else numbers, np.int64))

    def tokens(self, target: str, step: int, chances: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        keys = self._of(target, step, 0)
        uniform = uniforms(stream(np.repeat(keys, places.shape[1]), places.cpu().numpy().ravel()), 1)
        return drawn(chances, torch.from_numpy(uniform).view(places.shape))

    def order(self, target: str, step: int, places: int) -> torch.Tensor:
        return torch.from_numpy(shuffles(self._of(target, step, 1), places).astype(np.int64))

    def _of(self, target: str, step: int, purpose: int) -> np.ndarray:
        """uint64 (n,)."""
        return stream(stream(self._keys, zlib.crc32(target.encode())), 2 * step + purpose)
