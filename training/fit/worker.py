"""What each training process does: from the recipe to the trained model, going on from the latest checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from ...pipeline.storage.store import Store
from ..data.loader import TrainingBatches
from ..data.recipe import TrainingRecipe
from .checkpoints import Checkpoints
from .export import write_model
from .figures import Figures, peak_flops
from .metrics import Metrics
from .network import model_config, new_network
from .outcome import outcome_settings, refuse_other
from .schedule import schedule_of
from .trainer import Place, Trainer

Tell = Callable[[Any], "str | None"]
"""Takes a text or Figures, and says why the training is to stop, if it is."""


@dataclass(frozen=True)
class Trained:
    """What a training came to. stopped: before its end, with a checkpoint of this step. loss: of the last step; None
    where nothing was left to do."""

    step: int
    steps: int
    loss: float | None
    stopped: bool = False


class Training:
    """A recipe's training in one of its processes. Making one raises what opening the data does, TrainingError for an
    output that holds another training, and DamagedCheckpointError."""

    def __init__(self, recipe: TrainingRecipe, place: Place, tell: Tell) -> None:
        assert recipe.train is not None
        self._recipe, self._settings, self._tell, self._first = recipe, recipe.train, tell, place.rank == 0
        self._schedule = schedule_of(recipe)
        self._store = Store(self._settings.output, self._settings.storage_options)
        self._checkpoints = Checkpoints(self._store, self._settings.keep)
        self._batches = TrainingBatches(recipe, place.rank, place.world)
        config = model_config(self._batches.data, recipe)
        latest = self._checkpoints.latest()
        self._meta = {"recipe": outcome_settings(recipe), "model": config.to_json()}
        saved = None if latest is None else self._checkpoints.meta(latest)
        if saved is not None:
            refuse_other(self._store, saved, self._meta)
        network = new_network(config, recipe, begins=saved is None)
        self._trainer = Trainer(
            network,
            self._batches.modalities,
            self._settings,
            self._schedule,
            place,
            partial(_name, self._batches),
        )
        if latest is not None and saved is not None:
            state = self._trainer.state()
            self._checkpoints.load(latest, state)
            self._trainer.restore(latest, state)
            self._batches.load_state_dict(saved["data"])

    def run(self) -> Trained:
        """All steps that are left, unless it is told to stop."""
        return Trained(0, 0, None)
