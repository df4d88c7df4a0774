"""HMR2.0's published checkpoint, which Lightning pickled, read without running anything it holds.

Beside tensors the file pickles objects of other packages (its configuration, of yacs), which is why torch.load refuses
it as a file of weights alone. Here every name that a pickle asks for becomes an object that does nothing: no module is
imported, and no function that the file names is called. The file also holds data of the SMPL body model, under a
non-commercial licence; `convert` leaves it behind.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..networks.extras import naming_extras
from ..networks.hub import CheckpointError

PREFIXES = ("backbone.", "smpl_head.")
"""The names of the network's own tensors begin with one of these (see `hmr2`); the rest, a discriminator and the SMPL
body model, is of no use to it."""

_DTYPES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
}


def convert(source: Path, target: Path) -> int:
    """Write the network's tensors of the Lightning checkpoint `source` as the safetensors file `target`.

    Returns how many there are. Raises CheckpointError as `read_lightning` does, and ValueError where `target` isn't
    named *.safetensors; a file that stands there is replaced once the new one is whole.
    """
    with naming_extras():
        from safetensors.torch import save_file
    if target.suffix != ".safetensors":
        raise ValueError(f"{target}: the converted checkpoint's name must end in .safetensors")
    tensors = read_lightning(source)
    partial = target.with_name(f"{target.name}.partial")
    try:
        save_file(tensors, partial, metadata={"format": "pt"})
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return len(tensors)


def read_lightning(path: Path) -> dict[str, Any]:
    """The tensors of a Lightning checkpoint's state dict whose names begin with PREFIXES, on the CPU.

    Only their own bytes are read: the optimiser's state, which is larger, stays on the disk. Raises CheckpointError
    for a file that isn't there, isn't such a checkpoint, is cut short, or has nothing of either prefix.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the path of HMR2.0's checkpoint, a .ckpt file")
    try:
        with zipfile.ZipFile(path) as archive:
            tensors = _read_tensors(archive)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # what broken and hostile files make the readers raise is of many types
        raise CheckpointError(
            f"{path}: isn't a whole checkpoint in torch's zip format ({type(error).__name__}: {error}); it may have "
            f"been cut short, so fetch it again"
        ) from error
    for prefix in PREFIXES:
        if not any(name.startswith(prefix) for name in tensors):
            raise CheckpointError(f"{path}: has no tensors named {prefix}*, so it isn't a checkpoint of HMR2.0")
    return tensors


def _read_tensors(archive: zipfile.ZipFile) -> dict[str, Any]:
    root = next((name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")), None)
    if root is None:
        raise CheckpointError("a zip file, but not one that torch.save wrote")
    if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
        raise CheckpointError("was written on a big-endian machine")
    with archive.open(f"{root}data.pkl") as file:
        content = _TensorUnpickler(file).load()
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError("has no state_dict, so it isn't a checkpoint that Lightning wrote")
    return {
        name: _read_tensor(archive, f"{root}data/", value)
        for name, value in state.items()
        if isinstance(name, str) and name.startswith(PREFIXES) and isinstance(value, _Tensor)
    }


def _read_tensor(archive: zipfile.ZipFile, folder: str, place: _Tensor) -> Any:
    import torch

    storage = place.storage
    if storage.kind not in _DTYPES:
        raise CheckpointError(f"holds a tensor of {storage.kind}, which HMR2.0 has none of")
    dtype = getattr(torch, _DTYPES[storage.kind])
    values = torch.frombuffer(bytearray(archive.read(folder + storage.key)), dtype=dtype)
    if math.prod(place.size) > len(values):
        raise CheckpointError(f"holds a tensor of shape {place.size} in {len(values)} numbers")
    return values.as_strided(place.size, place.stride, place.offset).clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class _Storage:
    """Where a tensor's numbers lie. kind: the name of torch's class. key: the name of the archive's member."""

    kind: str
    key: str


@dataclass(frozen=True)
class _Tensor:
    """A tensor that hasn't been read. offset and stride count numbers, not bytes."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Inert:
    """What a pickle gets in place of anything it names: takes whatever it is given, and does nothing with it."""

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __call__(self, *_: Any, **__: Any) -> _Inert:
        return self

    def ignore(self, *_: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = ignore


class _TensorUnpickler(pickle.Unpickler):
    """Knows three names: those by which torch pickles a tensor, and the dict that state dicts are."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name.endswith("Storage"):
            return name
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
        }
        return known.get((module, name), _Inert)

    def persistent_load(self, pid: Any) -> _Storage:
        """pid: ("storage", class, key, device, count)."""
        what, kind, key = pid[:3]
        if what != "storage" or not isinstance(kind, str) or not isinstance(key, str):
            raise pickle.UnpicklingError("a persistent id that isn't a storage's")
        return _Storage(kind, key)

    def _tensor(self, storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> _Tensor:
        return _Tensor(storage, offset, tuple(size), tuple(stride))
