"""A model and a dataset that fit each other: opened together, and refused by name where they don't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...labelers.networks.hub import CheckpointError
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.manifest import DatasetError, Manifest, require_manifest
from ...pipeline.plan.recipe_file import RecipeError, checked_recipe
from ...pipeline.storage.store import Store
from ..data.mixture import Mixture
from ..data.opening import OpenDataset, open_data
from ..data.recipe import TrainingRecipe
from ..data.ride_along import PIXELS, TEXT, is_embeddings
from ..fit.open_model import open_network
from ..model.config import ModelConfig
from ..model.fourm import FourM
from ..model.from_data import modalities_of, refuse_other_data
from .names import names_in, renamed

_NAME = "dataset"
"""Of the dataset in the recipe that stands for it."""

_ROOM = 2
"""Places that a text's target needs beside the text, for its sentinels."""


@dataclass(frozen=True)
class Opened:
    """checkpoint: where the model is from, for people. notes: what of model and dataset isn't used, and why."""

    checkpoint: str
    model: FourM
    dataset: OpenDataset
    mixture: Mixture
    notes: Sequence[str]

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def inputs(self) -> list[str]:
        """What the model takes and the dataset has, in the mixture's order."""
        return [name for name in self.mixture.modalities if name in (self.dataset.mixed.inputs or ())]

    @property
    def targets(self) -> list[str]:
        """What the model says and the dataset has."""
        return [name for name in self.mixture.modalities if name in (self.dataset.mixed.targets or ())]

    def chunks(self, limit: int | None, size: int) -> list[np.ndarray]:
        """Positions of the samples, each once: int64 arrays of at most `size`, in rising order. Of a limit the first of
        the order that the loader's seed draws; samples of one unit stand together, so that it is read once."""
        positions = np.arange(self.dataset.samples if limit is None else min(limit, self.dataset.samples))
        ((_, places),) = self.mixture.places(positions)
        order = np.argsort(places.unit, kind="stable")
        return [np.sort(positions[order[at : at + size]]) for at in range(0, len(order), size)]


def open_both(checkpoint: str, dataset: str) -> Opened:
    """The model, and the dataset's samples as it takes them, each in its centre crop.

    Raises what `open_network` does, CheckpointError where a modality means something else to the model, DatasetError
    where the dataset can't be read or has nothing that the model says.
    """
    return fitted(checkpoint, open_network(checkpoint), dataset)


def fitted(checkpoint: str, model: FourM, url: str) -> Opened:
    """As `open_both`."""
    store = Store(url)
    manifest = require_manifest(store)
    names = names_in(manifest, model.config)
    model = renamed(model, names) if names else model
    has_tokens = [name for name, card in manifest.modalities.items() if _tokenised(card)]
    seen = [*has_tokens, *(name for name, card in manifest.modalities.items() if _kept_embeddings(card))]
    if manifest.corpus.reading.get("text") is None:
        seen.append(PIXELS)
    inputs = [one.name for one in model.config.inputs if one.name in seen]
    targets = [one.name for one in model.config.targets if one.name in has_tokens]
    if not targets or not inputs:
        raise CheckpointError(
            f"{checkpoint}: {store.url} has nothing that the model {'says' if not targets else 'takes'}: that has "
            f"{', '.join(has_tokens) or 'no tokens'}, and the model {', '.join(model.config.names)}"
        )
    lengths = {
        one.name: max(1, one.length - _ROOM)
        for one in model.config.modalities
        if one.name in has_tokens and manifest.modalities[one.name].kind["kind"] == TEXT
    }
    settings = {"url": url, "inputs": inputs, "targets": targets, "views": 1}
    data = {"datasets": {_NAME: settings}, "masking": "all2all", "max_tokens": lengths}
    try:
        opened = open_data(checked_recipe(TrainingRecipe, {"data": data}))
    except RecipeError as error:
        raise DatasetError(_without_key(str(error))) from None
    refuse_other_data(model.config, modalities_of(opened.mixture), checkpoint)
    called = [f"the model's {own} is the dataset's {name}" for own, name in names.items()]
    notes = [*called, *_notes(model.config, manifest, inputs, targets), *opened.notes]
    return Opened(checkpoint, model.eval(), opened.datasets[0], opened.mixture, notes)


def _tokenised(card: ModalityCard) -> bool:
    return card.keeps_tokens and card.tokens is not None and card.tokens.spec is not None


def _kept_embeddings(card: ModalityCard) -> bool:
    return is_embeddings(card) and card.keeps_labels


def _without_key(said: str) -> str:
    """What is wrong, without the place in a recipe that nobody has written."""
    place, _, rest = said.partition(f"data.datasets.{_NAME}.")
    return rest.partition(": ")[2] if not place.strip(" :") or place.startswith("recipe") else said


def _notes(config: ModelConfig, manifest: Manifest, inputs: Sequence[str], targets: Sequence[str]) -> list[str]:
    lacking = [one.name for one in config.modalities if one.name not in inputs and one.name not in targets]
    foreign = [name for name, card in manifest.modalities.items() if name not in config.names and _tokenised(card)]
    return [
        *([f"not evaluated, since the dataset has none of it: {', '.join(lacking)}"] if lacking else []),
        *([f"not used, since the model doesn't know it: {', '.join(foreign)}"] if foreign else []),
    ]
