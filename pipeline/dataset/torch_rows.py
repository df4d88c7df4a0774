"""The rows of a dataset for torch's DataLoader."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from .reader import DatasetReader


class TorchRows(IterableDataset):
    """See `Dataset.torch`, which makes it."""

    def __init__(
        self,
        reader: DatasetReader,
        modalities: Sequence[str],
        views: Collection[int] | None,
        rank: int,
        world_size: int,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} isn't in 0..{world_size - 1}")
        self._reader, self._modalities, self._views = reader, modalities, views
        self._rank, self._world_size = rank, world_size

    def __iter__(self) -> Iterator[dict[str, torch.Tensor | None]]:
        worker = get_worker_info()
        workers, index = (worker.num_workers, worker.id) if worker else (1, 0)
        part, parts = self._rank * workers + index, self._world_size * workers
        units = self._reader.units(self._modalities)
        own = units[len(units) * part // parts : len(units) * (part + 1) // parts]  # neighbours may lie in one shard
        for row in self._reader.rows(own, self._modalities, self._views):
            yield {
                name: None if ids is None else torch.from_numpy(ids.astype(np.int64))
                for name, ids in row.values.items()
            }
