"""The trained model in the form in which 4M's are published, in the output's folder `model`."""

from __future__ import annotations

from collections.abc import Iterable

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from ...pipeline.storage.store import Store
from ..model.files import file_of, index_of, names_by_file
from ..model.fourm import FourM
from ..model.published import written

FOLDER = "model"
_LAST = "config.json"
"""Without which nobody takes it for a model."""


def export_model(network: FourM, store: Store, meanings: Iterable[tuple[str, bytes]]) -> None:
    """Called by all processes that share the network out. The first one writes; it has what goes into one file in
    memory at a time. meanings: further files, by path, which say what its ids mean (`forms.meanings.files_of`)."""
    first = not dist.is_initialized() or dist.get_rank() == 0
    state = network.state_dict()
    names = names_by_file(state)
    for file, own in names.items():
        tensors: dict[str, Tensor] = {}
        for name in own:
            one = state[name]
            whole = one.full_tensor() if isinstance(one, DTensor) else one
            if first:
                tensors[name] = whole.detach().cpu()
        if first:
            store.replace(f"{FOLDER}/{file}", file_of(tensors))
    if first:
        for path, content in meanings:
            store.replace(f"{FOLDER}/{path}", content)
        told = {**index_of(names, state), **written(network.config)}
        for name in sorted(told, key=lambda name: name == _LAST):
            store.replace(f"{FOLDER}/{name}", told[name])


def is_exported(store: Store) -> bool:
    return store.exists(f"{FOLDER}/{_LAST}")
