"""A published model's modalities by the names that a dataset has for them: its tok_depth@224 is `depth`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import torch

from ...pipeline.dataset.manifest import Manifest
from ..data.mixture import PATCH
from ..data.ride_along import PIXELS
from ..forms.forms import datasets_name
from ..model.config import ModalityConfig, ModelConfig
from ..model.fourm import FourM
from ..model.published import modality_of


def names_in(manifest: Manifest, config: ModelConfig) -> dict[str, str]:
    """By the model's name the dataset's, of what they call differently. Where the model has one in several sizes, it is
    that of the dataset's."""
    known = {*manifest.modalities, PIXELS}
    found: dict[str, list[str]] = defaultdict(list)
    for one in config.modalities:
        name = datasets_name(one)
        if one.name not in known and name in known and name not in config.names and _fits(one, name, manifest):
            found[name].append(one.name)
    return {own[0]: name for name, own in found.items() if len(own) == 1}


def _fits(modality: ModalityConfig, name: str, manifest: Manifest) -> bool:
    if modality.form == "pixels":
        return modality.grid is not None and modality.grid[0] * PATCH == manifest.views["size"]
    tokens = manifest.modalities[name].tokens
    return modality.form != "grid" or tokens is None or tokens.spec is None or tokens.spec.length == modality.length


def renamed(model: FourM, names: Mapping[str, str]) -> FourM:
    """The model with modalities called otherwise, of the same tensors. names: by the old name the new one."""
    modalities = tuple(replace(one, name=names.get(one.name, one.name)) for one in model.config.modalities)
    with torch.device("meta"):
        made = FourM(replace(model.config, modalities=modalities))
    state = {}
    for key, tensor in model.state_dict().items():
        side, name = modality_of(key)
        state[key.replace(f"{side}.{name}.", f"{side}.{names[name]}.", 1) if name in names else key] = tensor
    made.load_state_dict(state, assign=True)
    return made.tie().train(model.training)
