"""The trained model in the form in which 4M's are published, in the output's folder `model`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from ...pipeline.storage.store import Store
from ..model.checkpoint import MODEL, write_model
from ..model.fourm import FourM

FOLDER = "model"
_LAST = "config.json"
"""Without which nobody takes it for a model."""


def export_model(network: FourM, store: Store, meanings: Iterable[tuple[str, bytes]]) -> None:
    """Called by all processes that share the network out; the first one writes. On its disk the model lies, too, while
    it is sent. meanings: further files, by path, which say what its ids mean (`forms.meanings.files_of`)."""
    first = not dist.is_initialized() or dist.get_rank() == 0
    tensors: dict[str, Tensor] = {}
    for name, one in network.state_dict().items():
        whole = one.full_tensor() if isinstance(one, DTensor) else one
        if first:
            tensors[name] = whole.detach().cpu()
    if first:
        for path, content in meanings:
            store.replace(f"{FOLDER}/{path}", content)
        with tempfile.TemporaryDirectory(prefix="tokenloom-model-") as above:
            folder = Path(above, FOLDER)
            write_model(network.config, tensors, folder)
            for file in sorted(folder.iterdir(), key=lambda file: (file.name == _LAST, file.name == MODEL)):
                store.replace(f"{FOLDER}/{file.name}", file.read_bytes())


def is_exported(store: Store) -> bool:
    return store.exists(f"{FOLDER}/{_LAST}")
