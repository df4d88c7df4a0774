"""Running a training recipe with Ray Train, as the driver."""

from __future__ import annotations

from collections.abc import Callable

from ...pipeline.cluster.device import chosen_device
from ...pipeline.cluster.trainers import Trainers
from ...pipeline.plan.recipe_file import RecipeError
from ..data.opening import open_data
from ..data.recipe import TrainingRecipe
from .figures import Figures
from .schedule import schedule_of
from .training import Trained
from .worker import train_worker

_PATIENCE = 600.0
"""Seconds that a Ctrl-C waits for a checkpoint; another one doesn't wait."""


def run_training(recipe: TrainingRecipe, hear: Callable[[str | Figures], object]) -> Trained:
    """Trains until the end, going on from the latest checkpoint in the recipe's output.

    hear: told in this process, a line or a step's figures. Ctrl-C and SIGTERM have the training saved before they
    are passed on.

    Raises RecipeError for what can't be trained, and what `Trainers.run` raises.
    """
    check(recipe)
    open_data(recipe)
    assert recipe.train is not None
    return Trainers(train_worker, {"recipe": recipe}, recipe.train.workers, "train", chosen_device(), _PATIENCE).run(
        hear
    )


def check(recipe: TrainingRecipe) -> None:
    """Raises RecipeError for a recipe that says of no training, or of one that can't be."""
    with recipe.named():
        for key in ("model", "train"):
            if getattr(recipe, key) is None:
                what = "{size: B}" if key == "model" else "{output: run, steps: 1000}"
                raise RecipeError(f"{key}: it is missing, and says what is trained; write it, as `{key}: {what}`")
        assert recipe.train is not None
        workers, parts, batch = recipe.train.workers, recipe.train.accumulation, recipe.data.batch_size
        if batch % (workers * parts):
            raise RecipeError(
                f"data.batch_size: {batch} samples can't be dealt out evenly to {workers} workers in {parts} parts "
                f"(train.workers, train.accumulation); make it a multiple of {workers * parts}"
            )
    schedule_of(recipe)
