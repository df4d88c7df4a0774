"""Trainings of a very small model on two small datasets, and the process that is one of several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tokenloom.labelers.contract.codecs import from_npy, to_npy
from tokenloom.pipeline.dataset.shards import RowKeys, write_labels
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.data.loader import TrainingBatches
from tokenloom.training.data.opening import open_data
from tokenloom.training.data.recipe import TrainingRecipe
from tokenloom.training.fit import run
from tokenloom.training.fit.figures import Figures
from tokenloom.training.fit.network import model_config, new_network
from tokenloom.training.fit.schedule import schedule_of
from tokenloom.training.fit.suspects import sample_name
from tokenloom.training.fit.trainer import Place, Trainer
from tokenloom.training.fit.training import Trained, train
from tokenloom.training.fit.worker import train_worker
from tokenloom.training.model import config
from training_recipes import content, illustrated, noise, written

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


def poisoned(folder: Path, output: str = "run", **train: Any) -> TrainingRecipe:
    """Of pictures, one of which, with the key 3, has embeddings that are no numbers, as no run would write them."""
    if not (folder / "out").exists():
        illustrated(folder, noise())
    one = {"url": str(folder / "out"), "inputs": ["corners", "caption"], "targets": ["caption", "mean_colour"]}
    recipe = small_recipe(folder, output, {"datasets": {"pictures": one}, "batch_size": 2}, **train)
    (dataset,) = open_data(recipe).datasets
    reader = dataset.mixed.reader.columns
    for unit in dataset.units:
        labels = reader.labels(unit, "corners")
        rows = RowKeys.of(labels.keys, labels.per_sample)
        pairs = zip(rows.keys, labels.values, strict=True)
        values = [to_npy(from_npy(one) * float("nan")) if key == "3" else one for key, one in pairs]
        shard = write_labels(rows, values, "npy", labels.meta)
        reader.store.replace(reader.label_path(unit, "corners"), shard)
    return recipe


def new_trainer(recipe: TrainingRecipe, place: Place | None = None) -> tuple[Trainer, TrainingBatches]:
    place = place or Place()
    with very_small():
        batches = TrainingBatches(recipe, place.rank, place.world)
        network = new_network(model_config(batches.data, recipe), recipe)
    assert recipe.train is not None
    name = partial(sample_name, batches.data)
    return Trainer(network, batches.modalities, recipe.train, schedule_of(recipe), place, name), batches


def losses(recipe: TrainingRecipe, steps: int = 2, place: Place | None = None) -> list[float]:
    """Of the first steps."""
    trainer, batches = new_trainer(recipe, place)
    return [trainer.advance(batch)[0].loss for batch, _ in zip(batches, range(steps), strict=False)]


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

    rank = ray.train.get_context().get_world_rank()
    Store(config["recipe"].train.output).replace(f"pids/{rank}", str(os.getpid()).encode())
    with very_small():
        train_worker(config)


def run_very_small(recipe: TrainingRecipe, hear: Callable[[str | Figures], object]) -> Trained:
    """As `run_training`, by Ray Train."""
    with very_small(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train_worker", train_very_small)
        return run.run_training(recipe, hear)


def made_at(url: str, steps: int, workers: int = 1) -> TrainingRecipe:
    """Of the datasets below a URL, to which it is trained."""
    datasets = {"a": {"url": f"{url}/one"}, "b": {"url": f"{url}/two"}}
    train = {**TRAIN, "output": f"{url}/run", "steps": steps, "every": 20, "workers": workers}
    return TrainingRecipe.model_validate(
        {**content(Path(), datasets=datasets, batch_size=8), "model": "tiny", "train": train}
    )
