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
from .batch import Batch
from .opening import OpenData
from .rank import Rank
from .read_ahead import reading_ahead
from .recipe import TrainingRecipe

_AHEAD = 2
"""Batches that a thread makes before they are asked for."""

_MOST_WORKERS = 1024


class TrainingBatches(IterableDataset[dict[str, Any]]):
    """The batches of one rank, without an end: of each global batch its part, as dicts of tensors.

    They hold what `batch.Batch` does: `positions`, int64 (n,); `inputs` and `targets`, what `masking.Masked` has, (n,
    tokens) each, whose `modality` counts `modalities`; `arrays`, pixels and embeddings by modality; `skipped`.

    A state is good for any number of ranks and workers: `state_after(batch)`, from the process that trains, or, where
    the DataLoader has no workers, `state_dict()`. States that torchdata's StatefulDataLoader takes in its workers are
    good for as many workers as there were, as it wants it.

    Raises what `Rank` does and, while iterating, DatasetError for a shard that can't be read.
    """

    def __init__(self, recipe: TrainingRecipe | str | Path, rank: int = 0, world_size: int = 1) -> None:
        self._run = Rank(recipe, rank, world_size)
        self._workers: int | None = None  # of whom the state is one's
        self._begun = torch.zeros(_MOST_WORKERS, dtype=torch.bool).share_memory_()  # by whom, since a state was loaded

    @property
    def data(self) -> OpenData:
        return self._run.data

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.data.mixture.modalities

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        if info:
            self._begin(info.id, info.num_workers)
        batches = self._run.batches(info.id, info.num_workers) if info else self._run.batches()
        stride = batches.batch_size * batches.world_size
        for batch in ahead(reading_ahead(batches), _AHEAD):
            self._run.state["position"] += stride
            yield as_tensors(batch)

    def _begin(self, worker: int, workers: int) -> None:
        if self._workers not in (None, workers):
            raise DatasetError(
                f"the state was taken in one of {self._workers} workers, and here are {workers}: give as many, or a "
                f"state of `state_after(batch)`, which is good for any number"
            )
        if self._begun[worker]:
            raise DatasetError(
                "a second iterator over a DataLoader with workers would begin where the first did: go on with the "
                "first, or `load_state_dict(state_after(batch))` with the last batch of it"
            )
        self._begun[worker] = True
        self._workers = workers if workers > 1 else None

    def state_after(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The state of a run that has trained on the batch and, in all other ranks, on theirs of the same step."""
        return self._run.state_after(batch)

    def state_dict(self) -> dict[str, Any]:
        """The state after the last batch that this process has made."""
        if get_worker_info() is None and self._begun.any():
            raise DatasetError(
                "the batches are made in the DataLoader's workers, who are ahead of what was trained on: take "
                "`state_after(batch)` of the last one, or torchdata's StatefulDataLoader"
            )
        return {**self._run.state, **({"workers": self._workers} if self._workers else {})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from there with the next iterator. Raises what `Rank.resume` does."""
        self._run.resume(state)
        self._workers = state.get("workers")
        self._begun[:] = False


def as_tensors(batch: Batch) -> dict[str, Any]:
    """A batch as a dict: arrays as tensors that share their memory, data classes in it as dicts; without what is the
    same of all batches."""
    return {name: value for name, value in _converted(batch).items() if name not in ("modalities", "forms", "most")}


def _converted(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: _converted(one) for name, one in found.items() if one is not None}
    if isinstance(value, dict):
        return {name: _converted(one) for name, one in value.items()}
    return value
