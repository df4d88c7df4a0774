"""Batches for torch: an IterableDataset for any DataLoader, whose state is one position.

    dataset = TrainingBatches("train.yaml", rank, world_size)
    for batch in DataLoader(dataset, batch_size=None, num_workers=4):
        ...
        torch.save({"data": dataset.state_after(batch), ...}, ...)

The batches of all ranks together are the same, in the same order, for any number of ranks and workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ...pipeline.dataset.manifest import DatasetError
from .ahead import ahead
from .mixture import Batch, Batches
from .opening import open_data
from .recipe import TrainingRecipe, load_training_recipe
from .state import check_state, state_at

_AHEAD = 2
"""Batches that a thread makes before they are asked for."""

_MOST_WORKERS = 1024


class TrainingBatches(IterableDataset[dict[str, Any]]):
    """The batches of one rank, without an end: of each global batch its part, as dicts of tensors.

    `positions` is int64 (n,); `inputs` and `targets` hold what `masking.Masked` does, (n, tokens) each. What their
    `modality` counts is `modalities`.

    recipe: a training recipe or its file; its batch_size is that of all ranks together.

    A state is good for any number of ranks and workers: `state_after(batch)`, from the process that trains, or, where
    the DataLoader has no workers, `state_dict()`. States that torchdata's StatefulDataLoader takes in its workers are
    good for as many workers as there were, as it wants it.

    Raises RecipeError for what the recipe can't have and, while iterating, DatasetError for a shard that can't be read.
    """

    def __init__(self, recipe: TrainingRecipe | str | Path, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} isn't in 0..{world_size - 1}")
        self.data = open_data(recipe if isinstance(recipe, TrainingRecipe) else load_training_recipe(recipe))
        total = self.data.settings.batch_size
        if total % world_size:
            raise DatasetError(
                f"data.batch_size: {total} samples can't be dealt out evenly to {world_size} ranks; make it a multiple"
            )
        self._rank, self._world_size, self._size = rank, world_size, total // world_size
        self._state = state_at(self.data, 0)
        self._begun = torch.zeros(_MOST_WORKERS, dtype=torch.bool).share_memory_()  # by whom, since a state was loaded

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.data.mixture.modalities

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        if info:
            self._begin(info.id, info.num_workers)
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        # A worker is a rank among all ranks' workers: each takes its part of every so many batches.
        rank, world = worker * self._world_size + self._rank, workers * self._world_size
        for batch in ahead(Batches(self.data.mixture, self._size, rank, world, self._state["position"]), _AHEAD):
            self._state["position"] += self._size * world
            yield as_tensors(batch)

    def _begin(self, worker: int, workers: int) -> None:
        if self._state.get("workers", workers) != workers:
            raise DatasetError(
                f"the state was taken in one of {self._state['workers']} workers, and here are {workers}: give as "
                f"many, or a state of `state_after(batch)`, which is good for any number"
            )
        if self._begun[worker]:
            raise DatasetError(
                "a second iterator over a DataLoader with workers would begin where the first did: go on with the "
                "first, or `load_state_dict(state_after(batch))` with the last batch of it"
            )
        self._begun[worker] = True
        if workers > 1:
            self._state["workers"] = workers

    def state_after(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The state of a run that has trained on the batch and, in all other ranks, on theirs of the same step."""
        first = int(batch["positions"][0]) - self._rank * self._size
        state = {name: value for name, value in self._state.items() if name != "workers"}
        return {**state, "position": first + self._size * self._world_size}

    def state_dict(self) -> dict[str, Any]:
        """The state after the last batch that this process has made."""
        if get_worker_info() is None and self._begun.any():
            raise DatasetError(
                "the batches are made in the DataLoader's workers, who are ahead of what was trained on: take "
                "`state_after(batch)` of the last one, or torchdata's StatefulDataLoader"
            )
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there with the next iterator. Raises DatasetError for a state of another recipe."""
        check_state(self.data, state)
        self._state = dict(state)
        self._begun[:] = False


def as_tensors(batch: Batch) -> dict[str, Any]:
    """A batch as a dict: arrays as tensors that share their memory, data classes in it as dicts, no names."""
    return {name: value for name, value in _converted(batch).items() if name != "modalities"}


def _converted(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: _converted(one) for name, one in found.items() if one is not None}
    return value
