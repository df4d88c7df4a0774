"""The network that a recipe asks for: its configuration from the data, and the weights that it begins with."""

from __future__ import annotations

import torch

from ..data.opening import OpenData
from ..data.recipe import TrainingRecipe
from ..data.ride_along import PIXELS
from ..model.config import PATCH, ModalityConfig, ModelConfig
from ..model.fourm import FourM
from ..model.start import initialise


def model_config(data: OpenData, recipe: TrainingRecipe) -> ModelConfig:
    assert recipe.model is not None
    modalities = [_modality(data, name) for name in data.mixture.modalities]
    return ModelConfig.of_size(
        recipe.model.size, modalities, qk_norm=recipe.model.qk_norm, num_register_tokens=recipe.model.registers
    )


def _modality(data: OpenData, name: str) -> ModalityConfig:
    mixture = data.mixture
    spec = mixture.spec(name)
    roles = {
        "is_input": any(name in (one.mixed.inputs or ()) for one in data.datasets),
        "is_target": spec is not None and any(name in (one.mixed.targets or ()) for one in data.datasets),
    }
    if name == PIXELS:
        side = mixture.size // PATCH
        return ModalityConfig(name, "pixels", side * side, grid=(side, side), **roles)
    if spec is None:
        return ModalityConfig(name, "embeddings", mixture.most(name), width=mixture.width(name), **roles)
    if spec.type == "text":
        return ModalityConfig(name, "text", mixture.most(name), spec.vocabulary, **roles)
    return ModalityConfig(name, "grid", spec.max_length, spec.vocabulary, grid=spec.grid, **roles)


def new_network(config: ModelConfig, recipe: TrainingRecipe) -> FourM:
    """With the weights that it begins with, drawn from the recipe's seed."""
    assert recipe.train is not None
    with torch.device("meta"):
        network = FourM(config)
    torch.manual_seed(recipe.train.seed)
    return initialise(network.to_empty(device="cpu"))
