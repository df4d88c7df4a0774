"""The batches of one rank, and where it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...pipeline.dataset.manifest import DatasetError
from .batch import Batch
from .mixture import Mixture

_BLOCK, _TOKENS, _SPAN = 1024, 2**22, 8192
"""Samples of several batches that are made at once, since a call of numpy's costs more than what it does for a few;
their tokens; and positions from the first to the last of them, since units of each window between are held then."""


@dataclass
class Batches:
    """The batches of one rank, on and on. Of each global batch, `batch_size` samples for each of `world_size` ranks,
    it makes its own part.

    The state is the position where the next global batch begins: any number of ranks goes on from there.
    """

    mixture: Mixture
    batch_size: int
    rank: int = 0
    world_size: int = 1
    position: int = 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            begin = self.position
            block = self.mixture.batch(self.block(begin))
            for step in range(self.span // self._everyone):
                if begin + step * self._everyone != self.position:
                    break  # a state was loaded meanwhile
                self.position += self._everyone
                yield block.rows(slice(step * self.batch_size, (step + 1) * self.batch_size))

    def block(self, begin: int) -> np.ndarray:
        """int64 (n,): this rank's positions of the batches that are made at once from the position `begin` on."""
        begins = np.arange(begin, begin + self.span, self._everyone)
        return (begins[:, None] + self.rank * self.batch_size + np.arange(self.batch_size)).ravel()

    @property
    def span(self) -> int:
        """Positions of all ranks over which batches are made at once."""
        if self.mixture.rides_along:
            return self._everyone
        tokens = self.mixture.input_tokens[1] + self.mixture.target_tokens[1]
        samples = min(_BLOCK, _TOKENS // tokens)
        return self._everyone * max(1, min(samples // self.batch_size, _SPAN // self._everyone))

    @property
    def _everyone(self) -> int:
        return self.world_size * self.batch_size

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "mixture": self.mixture.digest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises DatasetError where the state is of another mixture."""
        if state["mixture"] != self.mixture.digest:
            raise DatasetError(
                "the state is of another mixture: datasets, their units, weights, repeats, seed or window differ, and "
                "the position would mean other samples. Give the datasets as they were, or begin anew"
            )
        self.position = int(state["position"])
