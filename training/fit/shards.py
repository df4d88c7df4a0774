"""Tensors of several processes in a store, as torch.distributed.checkpoint writes and reads them: safetensors and JSON.

    FOLDER/RANK-NUMBER-SHA256.safetensors   parts of tensors, as many as a process has, NUMBER from 0
    FOLDER/index.json                       which tensors there are, and which part of each lies in which file

The index is written last; a folder without it holds nothing. There is no pickle: what isn't a tensor stands in the
index, as JSON. Any number of processes reads what any other number has written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    SavePlan,
    SavePlanner,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from ...pipeline.storage.store import Store

INDEX = "index.json"
_PART = 2**30
"""Bytes of tensors in one file, unless a single one is larger; so many are in memory twice while it is written."""


class DamagedCheckpointError(ValueError):
    """A checkpoint that isn't as it was written: which object, what about it, and the way out."""


def _a_type(name: str) -> str:
    if not isinstance(getattr(torch, name, None), torch.dtype):
        raise ValueError(f"{name} is no type of torch's")
    return name


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Part(_Told):
    file: str = Field(pattern=r"^[\w-]+\.safetensors$")
    key: str
    offset: list[NonNegativeInt]
    shape: list[NonNegativeInt]


class _Tensor(_Told):
    dtype: Annotated[str, AfterValidator(_a_type)]
    shape: list[NonNegativeInt]
    parts: list[_Part]

    def lacks(self) -> bool:
        """Whether its parts aren't all of it."""
        return sum(prod(part.shape) for part in self.parts) != prod(self.shape)


class Index(_Told):
    """index.json."""

    meta: dict[str, Any]
    tensors: dict[str, _Tensor]


class ShardWriter(StorageWriter):
    """Writes below `folder` of a store. meta: what else the index holds, JSON."""

    def __init__(self, store: Store, folder: str, meta: Mapping[str, Any]) -> None:
        self._store, self._folder, self._meta = store, folder, meta

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        for item in plan.items:
            if item.type == WriteItemType.BYTE_IO:
                raise TypeError(f"{item.index.fqn} is no tensor: the index's meta is for whatever is none")
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return [SavePlan(plan.items, rank, plan.planner_data) for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results = []
        for number, items in enumerate(_parts(plan.items)):
            tensors = {str(place): _of_cpu(planner.resolve_data(item)) for place, item in enumerate(items)}
            data = save(tensors)
            file = f"{plan.storage_data:05d}-{number:04d}-{_digest(data)}.safetensors"
            self._store.replace(f"{self._folder}/{file}", data)
            for (key, tensor), item in zip(tensors.items(), items, strict=True):
                results.append(WriteResult(item.index, tensor.nbytes, (file, key, list(tensor.shape))))
        return _done(results)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        tensors = {name: _described(one) for name, one in metadata.state_dict_metadata.items()}
        for result in (one for own in results for one in own):
            file, key, shape = result.storage_data
            offset = list(result.index.offset or [0] * len(shape))
            tensors[result.index.fqn]["parts"].append({"file": file, "key": key, "offset": offset, "shape": shape})
        index = {"meta": dict(self._meta), "tensors": tensors}
        self._store.replace(f"{self._folder}/{INDEX}", json.dumps(index, allow_nan=False).encode())

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False


class ShardReader(StorageReader):
    """Reads what ShardWriter wrote. Raises DamagedCheckpointError."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder
        self._index = read_index(store, folder)

    def reset(self, checkpoint_id: Any = None) -> None:
        pass

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        described: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
        storage = {}
        for name, one in self._index.tensors.items():
            chunks = [ChunkStorageMetadata(torch.Size(part.offset), torch.Size(part.shape)) for part in one.parts]
            properties = TensorProperties(dtype=getattr(torch, one.dtype))
            described[name] = TensorStorageMetadata(properties, torch.Size(one.shape), chunks)
            storage |= {MetadataIndex(name, part.offset): (part.file, part.key) for part in one.parts}
        return Metadata(described, storage_data=storage)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        self._places: Mapping[MetadataIndex, tuple[str, str]] = metadata.storage_data

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        wanted: dict[str, list[tuple[str, Any]]] = {}
        for item in plan.items:
            file, key = self._places[item.storage_index]
            wanted.setdefault(file, []).append((key, item))
        for file, items in wanted.items():
            tensors = self._load(file)
            for key, item in items:
                box = tuple(slice(at, at + size) for at, size in zip(item.storage_offsets, item.lengths, strict=True))
                target = planner.resolve_tensor(item).detach()
                target.copy_(tensors[key][box])
                planner.commit_tensor(item, target)
        return _done(None)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        return False

    def _load(self, file: str) -> dict[str, Tensor]:
        path = f"{self._folder}/{file}"
        try:
            data = self._store.read(path)
            if _digest(data) != file.removesuffix(".safetensors").rpartition("-")[2]:
                raise _damaged(self._store, path, "its bytes aren't those that its name tells of")
            return load(data)
        except (SafetensorError, FileNotFoundError) as error:
            raise _damaged(self._store, path, error) from None


def read_index(store: Store, folder: str) -> Index:
    """Of what was written there. Raises DamagedCheckpointError; FileNotFoundError where there is none."""
    path = f"{folder}/{INDEX}"
    data = store.read(path)
    try:
        index = Index.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        found = f"{field}: {first['msg']}" if field else first["msg"]
        raise _damaged(store, path, f"it is no index of a checkpoint: {found}") from None
    if lacking := next((name for name, one in index.tensors.items() if one.lacks()), None):
        raise _damaged(store, path, f"{lacking} isn't there as a whole")
    return index


def _damaged(store: Store, path: str, what: object) -> DamagedCheckpointError:
    folder = path.rpartition("/")[0]
    return DamagedCheckpointError(
        f"{store.url}/{path}: the checkpoint is damaged ({what}); delete {folder}/{INDEX}, and the training goes on "
        f"from the checkpoint before"
    )


def _of_cpu(tensor: Any) -> Tensor:
    assert isinstance(tensor, Tensor)
    return tensor.detach().cpu().contiguous()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _parts(items: Sequence[WriteItem]) -> Iterator[list[WriteItem]]:
    part: list[WriteItem] = []
    size = 0
    for item in items:
        assert item.tensor_data is not None
        own = item.tensor_data.chunk.sizes.numel() * item.tensor_data.properties.dtype.itemsize
        if part and size + own > _PART:
            yield part
            part, size = [], 0
        part.append(item)
        size += own
    if part:
        yield part


def _described(one: TensorStorageMetadata | BytesStorageMetadata) -> dict[str, Any]:
    assert isinstance(one, TensorStorageMetadata)
    return {"dtype": str(one.properties.dtype).removeprefix("torch."), "shape": list(one.size), "parts": []}


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
