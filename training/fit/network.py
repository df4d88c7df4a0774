"""The network that a recipe asks for, with the weights that it begins with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...labelers.networks.hub import CheckpointError
from ...pipeline.plan.recipe_file import RecipeError
from ...pipeline.storage.store import Store
from ..data.opening import OpenData
from ..data.recipe import TrainingRecipe
from ..model.checkpoint import Start, start_from, write_model
from ..model.config import SIZES, ModalityConfig, ModelConfig
from ..model.files import INDEX, MODEL
from ..model.fourm import FourM
from ..model.from_data import modalities_of
from ..model.start import initialise
from .checkpoints import Checkpoints
from .export import FOLDER
from .trainer import WEIGHTS

_PIECE = 2**26
"""Bytes of a checkpoint that are fetched at a time."""


def model_config(data: OpenData, recipe: TrainingRecipe) -> ModelConfig:
    assert recipe.model is not None
    own, named = recipe.model, SIZES[recipe.model.size]
    with recipe.named():
        try:
            return ModelConfig(
                modalities_of(data.mixture),
                own.dim or named.dim,
                own.depth or named.encoder_depth,
                own.depth or named.decoder_depth,
                own.heads or named.num_heads,
                qk_norm=own.qk_norm,
                num_register_tokens=own.registers,
                share_embedding=own.tied,
            )
        except ValueError as error:
            raise RecipeError(f"model: {error}") from None


def new_network(config: ModelConfig, recipe: TrainingRecipe) -> FourM:
    """With weights that are drawn from the recipe's seed."""
    assert recipe.model is not None
    assert recipe.train is not None
    network = FourM.empty(config)
    torch.manual_seed(recipe.train.seed)
    return initialise(network, recipe.model.embedding_std)


def started(network: FourM, recipe: TrainingRecipe) -> Start | None:
    """Gives it the weights of `model.start`, where the recipe has one. Raises CheckpointError."""
    if recipe.model is None or recipe.model.start is None:
        return None
    begin = recipe.model.start
    store = Store(begin.model, recipe.model.storage_options)
    try:
        with checkpoint_folder(store) as folder:
            return start_from(network, folder, begin.rename)
    except CheckpointError as error:
        raise CheckpointError(f"model.start: {error}") from None


@contextmanager
def checkpoint_folder(store: Store) -> Iterator[Path]:
    """A folder of this machine with the checkpoint; of a training whose output is named with its model, or with the
    weights that were saved last. A CheckpointError that is raised meanwhile names the store."""
    if _is_model(store.below(FOLDER)):
        store = store.below(FOLDER)
    if store.is_local and (_is_model(store) or Path(store.url, "config.json").is_file()):
        yield Path(store.url)
        return
    with tempfile.TemporaryDirectory(prefix="tokenloom-start-") as above:
        folder = Path(above, FOLDER)
        if not _is_model(store) and (network := saved_network(store)):
            write_model(network.config, network.state_dict(), folder)
        else:
            _fetch(store, folder)
        try:
            yield folder
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(folder), store.url)) from None


def _is_model(store: Store) -> bool:
    return store.exists(MODEL) or store.exists(INDEX)


def _fetch(store: Store, folder: Path) -> None:
    """Copies what belongs to a model; files of other kinds are there by name alone, for what is said of them."""
    folder.mkdir()
    for entry in store.list(recursive=False):
        file = folder / entry.name
        if entry.name.endswith((".json", ".safetensors")):
            with store.open(entry.name, entry.size) as source, file.open("wb") as target:
                shutil.copyfileobj(source, target, _PIECE)
        else:
            file.touch()


def saved_network(store: Store) -> FourM | None:
    """With the weights that the training whose output is `store` has saved last; None where there are none."""
    checkpoints = Checkpoints(store, 1)
    step = checkpoints.latest()
    if step is None:
        return None
    try:
        config = config_from(checkpoints.meta(step)["model"])
    except (KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{store.url}: its checkpoints are of something else than a training ({what})") from None
    network = initialise(FourM.empty(config))
    checkpoints.load(step, {f"{WEIGHTS}{name}": one for name, one in network.named_parameters()}, WEIGHTS)
    return network


def config_from(told: Mapping[str, Any]) -> ModelConfig:
    """What `asdict` made of a configuration, and JSON of that."""
    modalities = [{**one, "grid": one["grid"] and tuple(one["grid"])} for one in told["modalities"]]
    return ModelConfig(**{**told, "modalities": tuple(ModalityConfig(**one) for one in modalities)})
