"""One rank of a run: its part of each global batch, and the state from which any number of ranks goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...pipeline.dataset.manifest import DatasetError
from .batch import Batch
from .batches import Batches
from .opening import open_data
from .recipe import TrainingRecipe, load_training_recipe
from .state import resumed, state_at


class Rank:
    """A rank of `world_size`. recipe: a training recipe or its file; its batch_size is that of all ranks together.

    Raises RecipeError for what the recipe can't have, DatasetError where ranks can't share its batches evenly.
    """

    def __init__(self, recipe: TrainingRecipe | str | Path, rank: int, world_size: int) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} isn't in 0..{world_size - 1}")
        self._recipe = recipe if isinstance(recipe, TrainingRecipe) else load_training_recipe(recipe)
        self.data = open_data(self._recipe)
        total = self.data.settings.batch_size
        if total % world_size:
            raise DatasetError(
                f"data.batch_size: {total} samples can't be dealt out evenly to {world_size} ranks; make it a multiple"
            )
        self.rank, self.world_size, self.size = rank, world_size, total // world_size
        self.state = state_at(self.data, 0)

    def batches(self, worker: int = 0, workers: int = 1) -> Batches:
        """From where the run is. A worker is a rank among all ranks' workers: each makes its part of every so many."""
        rank, world = worker * self.world_size + self.rank, workers * self.world_size
        return Batches(self.data.mixture, self.size, rank, world, self.state["position"])

    def batch(self, step: int) -> Batch:
        """That of so many steps on from where the run is."""
        first = self.state["position"] + (step * self.world_size + self.rank) * self.size
        return self.data.mixture.batch(np.arange(first, first + self.size))

    def state_after(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The state of a run that has trained on the batch and, in all other ranks, on theirs of the same step.

        Raises DatasetError for what is no batch as it was made here.
        """
        positions = np.asarray(batch["positions"])
        if positions.shape != (self.size,):
            raise DatasetError(
                f"a batch of this rank has {self.size} positions, and this one {positions.shape}: give the DataLoader "
                f"`batch_size=None`, since batches are made already"
            )
        first = int(positions[0]) - self.rank * self.size
        return {**self.state, "position": first + self.size * self.world_size}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from there. Raises what `resumed` does: for a state of another recipe, or a dataset that has grown
        where the recipe has it refused."""
        self.data = resumed(self._recipe, self.data, state)
        self.state = state_at(self.data, state["position"])
