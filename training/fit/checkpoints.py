"""Checkpoints of a training: written beside it while it goes on, each complete or absent, the last few of them kept.

    checkpoints/STEP/...        as of `shards`, STEP with eight digits or more

A training goes on from the latest that is complete.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from ...pipeline.storage.store import Store
from .shards import INDEX, DamagedCheckpointError, ShardReader, ShardWriter, read_index

_FOLDER = "checkpoints"


class Checkpoints:
    """Of the training whose output is `store`; all its processes have one each. keep: how many stay.

    While one is written the next step may begin: what it holds is copied to memory first. In several processes
    everything here is called by all of them, in the same order.
    """

    def __init__(self, store: Store, keep: int) -> None:
        self._store, self._keep = store, keep
        self._writing: Future[Any] | None = None
        self._first = not _distributed() or dist.get_rank() == 0
        # Its own, so that what is written in a thread never mixes with what the training sends.
        self._group = _own_group() if _distributed() else None
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        logging.getLogger("c10d-NullHandler-dcp_logger").setLevel(logging.WARNING)  # two lines for each tensor

    def latest(self) -> int | None:
        """The step of the newest complete one; in several processes that which the first of them finds."""
        found = max(self._complete(), default=None) if self._first else None
        if self._group is None:
            return found
        told = torch.tensor(-1 if found is None else found)
        dist.broadcast(told, 0, self._group)
        return None if told < 0 else int(told)

    def meta(self, step: int) -> dict[str, Any]:
        """What was saved beside the tensors. Raises DamagedCheckpointError."""
        return read_index(self._store, _folder(step)).meta

    def load(self, step: int, state: Mapping[str, Tensor], below: str = "") -> None:
        """Fills the tensors of `state`, of this process, with what was saved under their names, which are all that
        begin with `below`.

        Raises DamagedCheckpointError, also where names or shapes are others."""
        reader = ShardReader(self._store, _folder(step))
        saved = reader.read_metadata().state_dict_metadata
        found = {
            name: list(one.size)
            for name, one in saved.items()
            if isinstance(one, TensorStorageMetadata) and name.startswith(below)
        }
        wanted = {name: list(tensor.shape) for name, tensor in state.items()}
        if odd := sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)):
            raise DamagedCheckpointError(
                f"{self._store.url}/{_folder(step)}: the checkpoint is of another network: {_told(odd[0], found)} "
                f"there, {_told(odd[0], wanted)} here; {len(odd)} of {len(found)} tensors differ"
            )
        with _unwrapped():
            load(dict(state), storage_reader=reader, process_group=self._group)

    def save(self, step: int, state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Begins to write a checkpoint, when the one before is done. meta: JSON, the same in all processes."""
        self.wait()
        writer = ShardWriter(self._store, _folder(step), json.loads(json.dumps(meta, allow_nan=False)))
        with _unwrapped():
            writing = async_save(dict(state), storage_writer=writer, process_group=self._group)
        assert isinstance(writing, Future)
        self._writing = writing

    def wait(self) -> None:
        """Until what is being written is complete; then older ones go. Raises what writing it raised."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        with _unwrapped():
            writing.result()
        if self._first:
            self._remove_old()

    def _names(self) -> list[str]:
        found = (entry.name for entry in self._store.list(_FOLDER))
        return [name for name in found if name.partition("/")[0].isdigit()]

    def _complete(self) -> list[int]:
        """Oldest first."""
        return sorted(
            int(folder) for folder, _, file in (name.partition("/") for name in self._names()) if file == INDEX
        )

    def _remove_old(self) -> None:
        """What is older than those that are kept, and what somebody who died has left of one. What makes a checkpoint
        complete goes first. Where another driver trains the same it loses nothing that is newer."""
        oldest = self._complete()[-self._keep :][0]
        names = [name for name in self._names() if int(name.partition("/")[0]) < oldest]
        for name in sorted(names, key=lambda name: not name.endswith(f"/{INDEX}")):
            self._store.delete(f"{_FOLDER}/{name}")


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Raises what went wrong in a process in place of torch's collection of the tracebacks of all of them."""
    try:
        yield
    except CheckpointException as error:
        first = next(iter(error.failures.values()))[0]
        raise first from None


def _own_group() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo")
    assert isinstance(group, dist.ProcessGroup)
    return group


def _folder(step: int) -> str:
    return f"{_FOLDER}/{step:08d}"


def _told(name: str, shapes: Mapping[str, list[int]]) -> str:
    return f"{name} of shape {shapes[name]}" if name in shapes else f"no {name}"


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
