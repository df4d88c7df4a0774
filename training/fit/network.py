"""The network that a recipe asks for, with the weights that it begins with."""

from __future__ import annotations

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
from ..model.checkpoint import MODEL, Start, start_from, write_model
from ..model.config import SIZES, ModalityConfig, ModelConfig
from ..model.fourm import FourM
from ..model.from_data import modalities_of
from ..model.start import initialise
from .checkpoints import Checkpoints
from .export import FOLDER
from .trainer import WEIGHTS


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
            )
        except ValueError as error:
            raise RecipeError(f"model: {error}") from None


def new_network(config: ModelConfig, recipe: TrainingRecipe) -> FourM:
    """With weights that are drawn from the recipe's seed."""
    assert recipe.train is not None
    network = FourM.empty(config)
    torch.manual_seed(recipe.train.seed)
    return initialise(network)


def started(network: FourM, recipe: TrainingRecipe) -> Start | None:
    """Gives it the weights of `model.start`, where the recipe has one. Raises CheckpointError."""
    if recipe.model is None or recipe.model.start is None:
        return None
    with checkpoint_folder(Store(recipe.model.start, recipe.model.storage_options)) as folder:
        return start_from(network, folder)


@contextmanager
def checkpoint_folder(store: Store) -> Iterator[Path]:
    """A folder of this machine with the checkpoint; of a training whose output is named with its model, or with the
    weights that were saved last."""
    if store.exists(f"{FOLDER}/{MODEL}"):
        store = store.below(FOLDER)
    if store.exists(MODEL) and store.is_local:
        yield Path(store.url)
        return
    with tempfile.TemporaryDirectory(prefix="tokenloom-start-") as above:
        folder = Path(above, FOLDER)
        if not store.exists(MODEL) and (network := saved_network(store)):
            write_model(network.config, network.state_dict(), folder)
            yield folder
            return
        folder.mkdir()
        for name in ("config.json", "modalities.json", MODEL):
            try:
                (folder / name).write_bytes(store.read(name))
            except FileNotFoundError as error:
                if name != "modalities.json":
                    raise CheckpointError(f"{error}; a model is a folder with config.json and {MODEL}") from None
        yield folder


def saved_network(store: Store) -> FourM | None:
    """With the weights that the training whose output is `store` has saved last; None where there are none."""
    checkpoints = Checkpoints(store, 1)
    step = checkpoints.latest()
    if step is None:
        return None
    network = initialise(FourM.empty(config_from(checkpoints.meta(step)["model"])))
    checkpoints.load(step, {f"{WEIGHTS}{name}": one for name, one in network.named_parameters()}, WEIGHTS)
    return network


def config_from(told: Mapping[str, Any]) -> ModelConfig:
    """What `asdict` made of a configuration, and JSON of that."""
    modalities = [{**one, "grid": one["grid"] and tuple(one["grid"])} for one in told["modalities"]]
    return ModelConfig(**{**told, "modalities": tuple(ModalityConfig(**one) for one in modalities)})
