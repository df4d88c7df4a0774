"""Opening a model to use it: a model's folder, or the output of a training, with what its ids mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...pipeline.storage.store import Store
from ..forms.forms import Forms
from ..forms.meanings import of_dataset, of_model
from ..model.checkpoint import read_model
from ..model.fourm import FourM
from .export import FOLDER, is_exported
from .network import checkpoint_folder


def open_network(checkpoint: str, storage_options: Mapping[str, Any] | None = None) -> FourM:
    """The network alone, on the CPU and in evaluation mode.

    checkpoint: the URL of a model's folder, or of a training's output: its model, or where that isn't done, what was
    saved last. Raises CheckpointError naming the file, and the key, field or modality that is wrong; StorageError.
    """
    with checkpoint_folder(Store(checkpoint, storage_options)) as folder:
        return read_model(folder)


def open_model(
    checkpoint: str, dataset: str | None = None, storage_options: Mapping[str, Any] | None = None
) -> tuple[FourM, Forms]:
    """The network of `open_network`, and its forms. dataset: says what the ids mean in place of the model's folder;
    published models have none there.

    Raises CheckpointError, FormError, DatasetError, StorageError.
    """
    store = Store(checkpoint, storage_options)
    network = open_network(checkpoint, storage_options)
    own = store.below(FOLDER) if is_exported(store) else store
    return network, Forms(network.config, of_dataset(Store(dataset)) if dataset else of_model(own), store.url)
