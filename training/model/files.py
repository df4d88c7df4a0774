"""The tensors of a model as files: model.safetensors or, where they are too many, several and an index.

model.safetensors                     or
model-00001-of-00003.safetensors ...
model.safetensors.index.json          which tensor lies in which of them, as transformers has it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, Field, TypeAdapter
from safetensors.torch import save

from ...labelers.networks.hub import CheckpointError
from ...labelers.networks.state_dicts import read_tensors
from .published import parsed

MODEL = "model.safetensors"
INDEX = f"{MODEL}.index.json"

_LARGEST = 4 * 2**30
"""Bytes of tensors in one file, unless a single one is larger; so many are in memory three times while it is made."""


class _Index(BaseModel):
    weight_map: dict[str, Annotated[str, Field(pattern=r"^[\w.-]+\.safetensors$")]] = Field(min_length=1)


def names_by_file(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """Which tensors go into which file, in their order."""
    parts: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        own = tensor.numel() * tensor.element_size()
        if parts[-1] and size + own > _LARGEST:
            parts.append([])
            size = 0
        parts[-1].append(name)
        size += own
    if len(parts) == 1:
        return {MODEL: parts[0]}
    return {f"model-{at:05d}-of-{len(parts):05d}.safetensors": part for at, part in enumerate(parts, 1)}


def file_of(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """A file of these tensors, each with memory of its own."""
    seen: set[int] = set()
    apart: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        apart[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return save(apart, metadata={"format": "pt"})


def index_of(names: Mapping[str, Sequence[str]], tensors: Mapping[str, torch.Tensor]) -> dict[str, bytes]:
    """The index, by its name; none where all lies in one file. names: as of `names_by_file`."""
    if len(names) == 1:
        return {}
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    where = {name: file for file, own in names.items() for name in own}
    return {INDEX: (json.dumps({"metadata": {"total_size": size}, "weight_map": where}, indent=1) + "\n").encode()}


def read_files(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model's folder, mapped from the disk. Raises CheckpointError naming the file."""
    if (folder / MODEL).is_file():
        return read_tensors(folder / MODEL)
    index = parsed(TypeAdapter(_Index), (folder / INDEX).read_bytes(), f"{folder}/{INDEX}")
    tensors: dict[str, torch.Tensor] = {}
    for file in sorted(set(index.weight_map.values())):
        found = read_tensors(folder / file)
        wanted = {name for name, where in index.weight_map.items() if where == file}
        if odd := sorted(found.keys() ^ wanted):
            what = "lacks" if odd[0] in wanted else "has"
            raise CheckpointError(f"{folder}/{file}: {what} {odd[0]}, and {INDEX} tells otherwise; fetch both again")
        tensors |= found
    return tensors
