"""What each of Ray Train's processes does in a training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ...labelers.networks.hub import CheckpointError
from ...pipeline.cluster.device import chosen_device
from ...pipeline.cluster.trainers import attempt, threads_for
from ..data.recipe import TrainingRecipe
from .trainer import DivergedError, Place
from .training import train


def train_worker(config: Mapping[str, Any]) -> None:
    """config: recipe, and what `Trainers.work` is given beside it."""
    import ray
    import ray.train
    import torch
    from ray.train.torch import get_device

    recipe, board = config["recipe"], config["board"]
    context = ray.train.get_context()
    world, rank = context.get_world_size(), context.get_world_rank()
    torch.set_num_threads(threads_for(config, context.get_local_world_size()))
    place = Place(rank, world, torch.device(chosen_device() or get_device()))
    if place.device.type == "cuda":  # so that a resumed training is the same on a GPU, too
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)

    def work() -> None:
        trained = train(recipe, place, lambda news: ray.get(board.tell.remote(news)))
        if rank == 0:
            ray.get(board.finish.remote(trained))

    attempt(
        work,
        board,
        alone=world == 1,
        reason=lambda error: _reason(error, recipe),
        ours=(ValueError, OSError, CheckpointError, torch.OutOfMemoryError),
        of_all=(DivergedError,),
    )


def _reason(error: Exception, recipe: TrainingRecipe) -> str:
    """What the user is told of it."""
    if type(error).__name__ == "OutOfMemoryError":
        return (
            f"the GPU's memory is too small for data.batch_size = {recipe.data.batch_size}: try train.checkpointing, a "
            f"larger train.accumulation, or more train.workers"
        )
    own = isinstance(error, ValueError | OSError | CheckpointError)
    return str(error) if own and str(error) else f"{type(error).__name__}: {error}"
