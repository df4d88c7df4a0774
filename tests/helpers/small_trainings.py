"""Trainings of a very small model on two small datasets, and the process that is one of several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tokenloom.training.data.recipe import TrainingRecipe
from tokenloom.training.fit import run
from tokenloom.training.fit.figures import Figures
from tokenloom.training.fit.trainer import Place
from tokenloom.training.fit.training import Trained, train
from tokenloom.training.fit.worker import train_worker
from tokenloom.training.model import config
from training_recipes import content, written

TRAIN = {"steps": 12, "every": 4, "base_learning_rate": 0.1}


@contextmanager
def very_small() -> Iterator[None]:
    """Meanwhile `tiny` is smaller still."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config.SIZES, "tiny", config.Size(32, 2, 2, 2))
        yield


def small_recipe(
    folder: Path, output: str = "run", data: Mapping[str, Any] | None = None, **train: Any
) -> TrainingRecipe:
    """Of the datasets that `two_datasets` wrote there. train: keys of `train`; data: of `data`."""
    made = {
        **content(folder, **{"batch_size": 8, **(data or {})}),
        "model": "tiny",
        "train": {"output": str(folder / output), **TRAIN, **train},
    }
    return written(folder / f"{output}.yaml", made)


class Heard:
    """Keeps what it is told; after `until` steps it wants to stop."""

    def __init__(self, until: int | None = None) -> None:
        self.said: list[str] = []
        self.figures: list[Figures] = []
        self._until = until

    def __call__(self, news: str | Figures) -> str | None:
        if isinstance(news, str):
            self.said.append(news)
        else:
            self.figures.append(news)
        return "enough" if self._until and len(self.figures) >= self._until else None


def trained_here(recipe: TrainingRecipe, heard: Heard | None = None) -> Trained:
    """As `run_training` with one worker, which is this process, without Ray."""
    with very_small():
        return train(recipe, Place(), heard or Heard())


def train_very_small(config: Mapping[str, Any]) -> None:
    """What a process of Ray Train does, which leaves its number in `pids/RANK` of the output."""
    import ray.train

    pids = Path(config["recipe"].train.output, "pids")
    pids.mkdir(parents=True, exist_ok=True)
    (pids / str(ray.train.get_context().get_world_rank())).write_text(str(os.getpid()))
    with very_small():
        train_worker(config)


def run_very_small(recipe: TrainingRecipe, hear: Callable[[str | Figures], object]) -> Trained:
    """As `run_training`, by Ray Train."""
    with very_small(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train_worker", train_very_small)
        return run.run_training(recipe, hear)


def made_at(url: str, steps: int) -> TrainingRecipe:
    """Of the datasets below a URL, to which it is trained."""
    datasets = {"a": {"url": f"{url}/one"}, "b": {"url": f"{url}/two"}}
    train = {**TRAIN, "output": f"{url}/run", "steps": steps, "every": 20}
    return TrainingRecipe.model_validate(
        {**content(Path(), datasets=datasets, batch_size=8), "model": "tiny", "train": train}
    )
