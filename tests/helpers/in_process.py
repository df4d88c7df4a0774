"""Whole runs in this process and without Ray: their stages are called one after another."""

from __future__ import annotations

import io
import json
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from corpus_files import put_all
from tokenloom.pipeline import compact as compacting
from tokenloom.pipeline import retry as retrying
from tokenloom.pipeline import run as running
from tokenloom.pipeline.cli import main
from tokenloom.pipeline.cluster.size import ClusterSize, Node
from tokenloom.pipeline.cluster.trainers import Board
from tokenloom.pipeline.commands import run as commands
from tokenloom.pipeline.engine.config import StageConfig
from tokenloom.pipeline.engine.merging import merge_one
from tokenloom.pipeline.engine.stage import StageWorker
from tokenloom.pipeline.engine.stream import ReaderConfig, UnitResult, read_units, result_of, works_as_text
from tokenloom.pipeline.engine.tally import Tally
from tokenloom.pipeline.fitting import fit as fitting
from tokenloom.pipeline.fitting import ray_train
from tokenloom.pipeline.fitting.job import FitJob
from tokenloom.pipeline.fitting.listener import FitListener
from tokenloom.pipeline.fitting.worker import train_worker
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import Recipe
from tokenloom.pipeline.plan.worklist import Work
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.data.recipe import TrainingRecipe
from tokenloom.training.fit import run as training
from tokenloom.training.fit.figures import Figures
from tokenloom.training.fit.trainer import Place
from tokenloom.training.fit.training import Trained, train
from tokenloom.training.use import export as exporting


def stream_here(works: Sequence[Work], reader: ReaderConfig, stages: Sequence[StageConfig]) -> Iterator[UnitResult]:
    """As `engine.stream.stream`, without Ray."""
    workers = [StageWorker(config) for config in stages]
    block = pa.table({"work": [works_as_text(works)]})
    for table in read_units(block, reader):
        for worker in workers:
            table = next(worker(table))
        yield result_of(json.loads(table["head"][0].as_py()))


class _BoardHere:
    """A board as the handle of its actor shows it, whose methods are called at once."""

    def __init__(self) -> None:
        self.board = Board()

    def __getattr__(self, method: str) -> SimpleNamespace:
        return SimpleNamespace(remote=getattr(self.board, method))


def run_tasks_here(
    work: Callable[[Any], dict[str, Any]], items: Sequence[Any], local_paths: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """As `engine.tasks.run_tasks`, without Ray."""
    return map(work, items)


def run_fit_here(job: FitJob, listener: FitListener | None = None) -> dict[str, bytes]:
    """As `fitting.ray_train.run_fit` with one worker, which is this process, without Ray."""
    import ray
    import ray.train
    import ray.train.torch

    job.new_tokenizer()
    board, listener = _BoardHere(), listener or FitListener()
    alone = SimpleNamespace(get_world_size=lambda: 1, get_world_rank=lambda: 0, get_local_world_size=lambda: 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "get", lambda given: given)
        patch.setattr(ray.train, "get_context", lambda: alone)
        patch.setattr(ray.train.torch, "get_device", lambda: "cpu")
        patch.setattr(ray.train.torch, "prepare_model", lambda module, **_: module)
        train_worker({"job": job, "board": board, "threads": 1})
    for news in board.board.take():
        if isinstance(news, str):
            listener.say(news)
        else:
            listener.trained(news, job.settings)
    files = board.board.outcome()
    if files is None:
        raise ray_train.FitError(board.board.reason())
    return files


def run_training_here(recipe: TrainingRecipe, hear: Callable[[str | Figures], object]) -> Trained:
    """As `training.fit.run.run_training` with one worker, which is this process, without Ray."""

    def tell(news: str | Figures) -> None:
        hear(news)

    training.check(recipe)
    return train(recipe, Place(), tell)


@contextmanager
def without_ray(gpus: int = 0) -> Iterator[None]:
    """Runs that are begun meanwhile need no Ray; they take the cluster to have two CPUs and so many GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "stream", stream_here)
        patch.setattr(exporting, "run_tasks", run_tasks_here)
        for module in (running, commands):
            patch.setattr(module, "cluster_size", lambda: ClusterSize((Node(2, gpus),)))
        for module in (fitting, ray_train):
            patch.setattr(module, "run_fit", run_fit_here)
        patch.setattr(training, "run_training", run_training_here)
        patch.setattr(running, "check_nodes", lambda paths, plugins=(): None)
        patch.setattr(compacting, "stream_merges", lambda store, merges: (merge_one(store, one) for one in merges))
        for module in (running, retrying, compacting):
            patch.setattr(module, "start_ray", lambda: None)
            patch.setattr(module, "raylet_watched", nullcontext)
        patch.setattr("tokenloom.pipeline.commands.doctor.stop_ray", lambda: None)  # the tests' own, that others use
        yield


def weave(recipe: Recipe, replacing: Sequence[str] = (), take_changes: bool = False, **more: Any) -> Tally:
    with without_ray():
        return running.execute(make_plan(recipe, replacing, take_changes), **more)


_GIVEN: dict[tuple[str, int | None], Store] = {}


def given(recipe: Recipe, limit: int | None = None) -> None:
    """Leaves at the recipe's output what `weave` would leave there, for tests that begin with it: it is made once for
    all of them, in memory, and copied. Their corpora have to be such as nobody changes."""
    like = recipe.model_copy(update={"output": ""}).model_dump_json(), limit
    if like not in _GIVEN:
        made = Store(f"memory://{uuid.uuid4()}")
        weave(recipe.model_copy(update={"output": made.url}), limit=limit)
        _GIVEN[like] = made
    copy_objects(_GIVEN[like], Store(recipe.output))


def copy_objects(store: Store, to: Store) -> None:
    put_all(to, {entry.name: store.read(entry.name) for entry in store.list()})


def said(*words: object, code: int = 0) -> str:
    """What a command prints that ends with this code; it needs no Ray."""
    out, err = io.StringIO(), io.StringIO()
    with without_ray(), pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["tokenloom", *map(str, words)])
        patch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == code, out.getvalue() + err.getvalue()
    return out.getvalue() + err.getvalue()
