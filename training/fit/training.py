"""A training in one of its processes: from the recipe to the model, going on from the latest checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch.utils.data import DataLoader

from ...pipeline.storage.store import Store
from ..data.loader import TrainingBatches
from ..data.opening import OpenData
from ..data.recipe import TrainingRecipe
from ..forms.meanings import files_of
from ..model.checkpoint import Start
from ..model.config import ModelConfig
from ..model.sizes import on_paper
from .checkpoints import Checkpoints
from .export import export_model, is_exported
from .figures import Figures, peak_flops
from .kept import kept_settings, refuse_others
from .metrics import Metrics
from .network import model_config, new_network, started
from .paper import step_of
from .schedule import schedule_of
from .suspects import sample_name
from .trainer import DivergedError, Place, Trainer

Tell: TypeAlias = "Callable[[str | Figures], str | None]"
"""Takes a line or a step's figures, and says why the training is to stop, if it is."""


@dataclass(frozen=True)
class Trained:
    """What a training came to: `step` of `steps` are done, and saved."""

    step: int
    steps: int


def train(recipe: TrainingRecipe, place: Place, tell: Tell) -> Trained:
    """Does all steps that are left, or those until `tell` has a reason to stop; what was done is saved then.

    tell: of the first process, the only one that calls it.

    Raises what opening the data raises, OtherTrainingError, DamagedCheckpointError, DivergedError, StorageError.
    """
    training = _Training(recipe, place, tell)
    training.advance_all()
    if training.step == training.steps:
        training.export()
    elif place.rank == 0:
        tell(f"stopped, and saved at step {training.step:,} of {training.steps:,}")
    return Trained(training.step, training.steps)


class _Training:
    def __init__(self, recipe: TrainingRecipe, place: Place, tell: Tell) -> None:
        assert recipe.train is not None
        self._settings, self._tell, self._first = recipe.train, tell, place.rank == 0
        schedule = schedule_of(recipe)
        self.steps = schedule.steps
        self._store = Store(self._settings.output, self._settings.storage_options)
        self._checkpoints = Checkpoints(self._store, self._settings.keep)
        self._batches = TrainingBatches(recipe, place.rank, place.world)
        config = model_config(self._batches.data, recipe)
        self._meta = json.loads(json.dumps({"settings": kept_settings(recipe), "model": asdict(config)}))
        latest = self._checkpoints.latest()
        saved = None if latest is None else self._checkpoints.meta(latest)
        if saved is not None:
            refuse_others(self._store, saved, self._meta)
            self._batches.load_state_dict(saved["data"])
        network = new_network(config, recipe)
        begun = started(network, recipe) if saved is None else None
        self._trainer = Trainer(
            network,
            self._batches.modalities,
            self._settings,
            schedule,
            place,
            partial(sample_name, self._batches.data),
            *_arithmetic(self._batches.data, recipe, config, place),
        )
        if latest is not None:
            state = self._trainer.state()
            self._checkpoints.load(latest, state)
            self._trainer.restore(latest, state)
        if self._first:
            tell(f"going on from step {latest:,} of {self.steps:,}" if latest else f"training for {self.steps:,} steps")
            if begun is not None:
                tell(_told(begun))

    @property
    def step(self) -> int:
        return self._trainer.step

    def advance_all(self) -> None:
        metrics = Metrics(self._store, self.step) if self._first else None
        stop = False
        for batch in self._loader():
            try:
                figures, stopping = self._trainer.advance(batch, stop)
            except DivergedError as error:
                if metrics is not None:
                    metrics.add(error.figures)
                    metrics.cut()
                    self._tell(error.figures)
                self._checkpoints.wait()
                raise
            if metrics is not None:
                metrics.add(figures)
                stop = self._tell(figures) is not None
            last = self.step == self.steps or stopping
            if last or self.step % self._settings.every == 0:
                if metrics is not None:
                    metrics.cut()
                self._checkpoints.save(
                    self.step, self._trainer.state(), {**self._meta, "data": self._batches.state_after(batch)}
                )
            if last:
                break
        self._checkpoints.wait()

    def export(self) -> None:
        """Writes the model, unless that was done."""
        if not is_exported(self._store):
            meanings = files_of(self._batches.data.mixture, self._trainer.network.config.names)
            export_model(self._trainer.network, self._store, meanings)

    def _loader(self) -> Iterator[Mapping[str, Any]]:
        if self.step == self.steps:
            return iter(())
        return iter(DataLoader(self._batches, batch_size=None, num_workers=self._settings.loader_workers))


def _arithmetic(
    data: OpenData, recipe: TrainingRecipe, config: ModelConfig, place: Place
) -> tuple[float, float | None]:
    """Operations of a step of all processes, and of a GPU a second, at most; None where that isn't known."""
    peak = peak_flops(torch.cuda.get_device_name(place.device)) if place.device.type == "cuda" else None
    if peak is None:
        return 0.0, None
    return on_paper(config, step_of(data, recipe)).flops_per_token * schedule_of(recipe).step_tokens, peak


def _told(begun: Start) -> str:
    taken = ", ".join(name if name == there else f"{name} (there {there})" for name, there in begun.taken.items())
    new = f"; new: {', '.join(begun.new)}" if begun.new else ""
    left_out = f"; left out: {', '.join(begun.left_out)}" if begun.left_out else ""
    return f"begins with model.start's weights of the network and of {taken or 'no modality'}{new}{left_out}"
