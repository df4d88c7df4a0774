"""Batches for torch: the same for any number of ranks and workers, across restarts from any to any other."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.data import batches as making
from tokenloom.training.data import loader
from tokenloom.training.data.loader import TrainingBatches
from tokenloom.training.data.recipe import TrainingRecipe
from torch.utils.data import DataLoader
from training_recipes import content, two_datasets, written

SHAPES = [(1, 0), (1, 3), (2, 2), (4, 1), (8, 2)]
SIZE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mixed")
    two_datasets(made)
    return made


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    """Of some of the few batches that are asked for here, not of a thousand samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "_BLOCK", 2 * SIZE)
        yield


def recipe(folder: Path, **data: Any) -> TrainingRecipe:
    return written(folder / "train.yaml", content(folder, **data))


def simulated(dataset: TrainingBatches, workers: int) -> Iterator[dict[str, Any]]:
    """What a DataLoader with so many workers gives: each has a copy of the dataset, and they take turns."""
    if not workers:
        yield from dataset
    streams = []
    for worker in range(workers):
        copy = pickle.loads(pickle.dumps(dataset))
        streams.append(as_worker(iter(copy), worker, workers))
    while True:
        for stream in streams:
            yield next(stream)


@contextmanager
def in_worker(worker: int, workers: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "get_worker_info", lambda: SimpleNamespace(id=worker, num_workers=workers))
        yield


def as_worker(stream: Iterator[Any], worker: int, workers: int) -> Iterator[Any]:
    while True:
        with in_worker(worker, workers):
            batch = next(stream)
        yield batch


def real(dataset: TrainingBatches, workers: int) -> Iterator[dict[str, Any]]:
    return iter(DataLoader(dataset, batch_size=None, num_workers=workers))


def flat(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    sides = {f"{side}.{name}": one for side in ("inputs", "targets") for name, one in batch[side].items()}
    return {"positions": batch["positions"], **sides}


def joined(parts: list[dict[str, Any]]) -> dict[str, bytes]:
    """The bytes of batches, one behind the other."""
    flats = [flat(part) for part in parts]
    return {name: torch.cat([one[name] for one in flats]).numpy().tobytes() for name in flats[0]}


def take(recipe: TrainingRecipe, shape: tuple[int, int], state: Any, steps: int, load: Any) -> tuple[list[Any], Any]:
    """The global batches of some steps, with so many ranks and workers each, and the state after them."""
    ranks = [TrainingBatches(recipe, rank, shape[0]) for rank in range(shape[0])]
    for rank in ranks:
        if state is not None:
            rank.load_state_dict(state)
    streams = [load(rank, shape[1]) for rank in ranks]
    batches = [[next(stream) for stream in streams] for _ in range(steps)]
    states = [rank.state_after(batch) for rank, batch in zip(ranks, batches[-1], strict=True)]
    assert all(one == states[0] for one in states)
    return [part for parts in batches for part in parts], pickle.loads(pickle.dumps(states[0]))


@pytest.mark.slow
@settings(max_examples=3)
@given(st.integers(0, 2**62), st.lists(st.tuples(st.sampled_from(SHAPES), st.integers(1, 3)), min_size=2, max_size=3))
def test_the_same_batches_for_any_ranks_and_workers(folder, seed: int, legs: list[tuple[tuple[int, int], int]]):
    mine = recipe(folder, seed=seed)
    expected, _ = take(mine, (1, 0), None, sum(steps for _, steps in legs), simulated)
    found: list[Any] = []
    state = None
    for shape, steps in legs:
        parts, state = take(mine, shape, state, steps, simulated)
        found += parts
    assert joined(found) == joined(expected)
    assert state is not None
    assert state["position"] == SIZE * sum(steps for _, steps in legs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("first", "second"), [((1, 3), (2, 2)), ((2, 2), (1, 0))])
def test_the_same_with_real_workers(folder, first, second):
    mine = recipe(folder)
    expected, _ = take(mine, (1, 0), None, 9, simulated)
    begun, state = take(mine, first, None, 5, real)
    gone_on, _ = take(mine, second, state, 4, real)
    assert joined(begun + gone_on) == joined(expected)


def test_a_state_without_workers_is_that_of_what_was_given_out(folder):
    """Although a thread has made more."""
    dataset = TrainingBatches(recipe(folder))
    stream = iter(dataset)
    batches = [next(stream) for _ in range(3)]
    assert dataset.state_dict() == dataset.state_after(batches[-1])
    other = TrainingBatches(recipe(folder))
    other.load_state_dict(dataset.state_dict())
    assert joined([next(iter(other))]) == joined([next(stream)])


def test_workers_go_on_from_states_of_their_own(folder):
    """As torchdata's StatefulDataLoader has them: a state from each worker, and as many workers again."""
    mine = recipe(folder)
    expected, _ = take(mine, (1, 0), None, 8, simulated)
    states, begun = [], []
    for worker, count in enumerate((3, 2)):  # in turn: five batches
        dataset = TrainingBatches(mine)
        stream = as_worker(iter(dataset), worker, 2)
        begun.append([next(stream) for _ in range(count)])
        with in_worker(worker, 2):
            states.append(dataset.state_dict())
    found = [begun[0][0], begun[1][0], begun[0][1], begun[1][1], begun[0][2]]
    streams = []
    for worker, state in enumerate(states):
        dataset = TrainingBatches(mine)
        dataset.load_state_dict(state)
        streams.append(as_worker(iter(dataset), worker, 2))
    found += [next(streams[1]), next(streams[0]), next(streams[1])]
    assert joined(found) == joined(expected)
    dataset = TrainingBatches(mine)
    dataset.load_state_dict(states[0])
    with pytest.raises(DatasetError, match="taken in one of 2 workers, and here are 3"):
        next(as_worker(iter(dataset), 0, 3))


@pytest.mark.s3
def test_from_s3_through_a_cache(folder, s3_url, tmp_path):
    """Also by workers that are forked from a process which has read there, and by one that finds all in the cache."""
    local = content(folder)["data"]["datasets"]
    for name in ("one", "two"):
        source, target = Store(folder / name), Store(f"{s3_url}/{name}")
        for entry in source.list():
            target.create(entry.name, source.read(entry.name))
    remote = {name: {**one, "url": f"{s3_url}/{Path(one['url']).name}"} for name, one in local.items()}
    mine = recipe(folder, datasets=remote, cache={"folder": str(tmp_path / "cache")})
    expected, _ = take(recipe(folder), (1, 0), None, 4, simulated)
    dataset = TrainingBatches(mine)
    found = [next(iter(dataset))]
    stream = real(dataset, 2)
    found += [next(stream) for _ in range(3)]
    assert joined(found) == joined(expected)
    kept = len(list((tmp_path / "cache").iterdir()))
    assert kept > 10
    assert joined(take(mine, (1, 0), None, 4, simulated)[0]) == joined(expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_with_torchdata(folder):
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    mine = recipe(folder)
    expected, _ = take(mine, (1, 0), None, 8, simulated)
    first = stateful.StatefulDataLoader(TrainingBatches(mine), batch_size=None, num_workers=2)
    stream = iter(first)
    found = [next(stream) for _ in range(5)]
    second = stateful.StatefulDataLoader(TrainingBatches(mine), batch_size=None, num_workers=2)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    stream = iter(second)
    found += [next(stream) for _ in range(3)]
    assert joined(found) == joined(expected)


@pytest.mark.slow
def test_what_a_dataloader_with_workers_would_get_wrong_is_refused(folder):
    dataset = TrainingBatches(recipe(folder))
    data = DataLoader(dataset, batch_size=None, num_workers=1)
    batch = next(iter(data))
    with pytest.raises(DatasetError, match=r"take `state_after\(batch\)` of the last one"):
        dataset.state_dict()
    with pytest.raises(DatasetError, match="a second iterator over a DataLoader with workers"):
        next(iter(data))
    dataset.load_state_dict(dataset.state_after(batch))
    assert next(iter(data))["positions"][0] == SIZE


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "another recipe: datasets, their units"),
        ({"window": 3}, "another recipe: datasets, their units"),
        ({"input_tokens": 21}, "another recipe: modalities, their tokens"),
        (
            {"masking": {"schemes": [{"inputs": {"caption": 1}, "targets": {"dinov2": 1}}]}},
            "another recipe: modalities",
        ),
    ],
)
def test_a_state_of_another_recipe_is_refused(folder, changes, said):
    state = TrainingBatches(recipe(folder)).state_dict()
    with pytest.raises(DatasetError, match=said):
        TrainingBatches(recipe(folder, **changes)).load_state_dict(state)


@pytest.mark.parametrize(
    "change",
    [
        {"position": -8},
        {"position": "40"},
        {"position": 8.0},
        {"position": True},
        {"position": 2**62},
        {"position": 10**30},
        {"order": None},
        {"manifests": {"a": [[0]]}},
        {"manifests": {"a": [[0, -1]]}},
        {"manifests": []},
        {"workers": "two"},
    ],
)
def test_what_is_no_state_is_refused_by_its_key(folder, change):
    dataset = TrainingBatches(recipe(folder))
    (key,) = change
    with pytest.raises(DatasetError, match=f"this is no state of batches: {key}"):
        dataset.load_state_dict({**dataset.state_dict(), **change})
    with pytest.raises(DatasetError, match=r"no state of batches: position: .*it has the keys epoch"):
        dataset.load_state_dict({"epoch": 3})


def test_batches_that_a_dataloader_has_batched_again_are_refused(folder):
    dataset = TrainingBatches(recipe(folder))
    with pytest.raises(DatasetError, match="`batch_size=None`"):
        dataset.state_after(next(iter(DataLoader(dataset))))


def test_a_batch_can_be_moved_to_a_device_part_by_part(folder):
    batch = next(iter(TrainingBatches(recipe(folder))))
    assert set(batch) == {"positions", "inputs", "targets", "arrays", "skipped"}
    sides = (batch["inputs"], batch["targets"], batch["arrays"])
    tensors = [batch["positions"], batch["skipped"], *(one for side in sides for one in side.values())]
    assert all(isinstance(one, torch.Tensor) for one in tensors)


def test_ranks_share_a_batch_evenly(folder):
    with pytest.raises(DatasetError, match="16 samples can't be dealt out evenly to 3 ranks"):
        TrainingBatches(recipe(folder), 0, 3)
    with pytest.raises(ValueError, match=r"rank 2 isn't in 0\.\.1"):
        TrainingBatches(recipe(folder), 2, 2)


@pytest.mark.slow
def test_importing_it_loads_neither_ray_nor_labelers():
    code = (
        "import sys, tokenloom.training.data.loader\n"
        "print(*sorted({'ray', 'cv2', 'PIL', 'tokenizers', 'transformers'} & set(sys.modules)))\n"
        "files = {name for name, module in sys.modules.items() if getattr(module, '__file__', None)}\n"
        "print(*sorted(name for name in files if name.startswith('tokenloom.labelers')))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["", "tokenloom.labelers.contract.licences"]


@pytest.mark.slow
def test_opening_a_recipe_needs_no_torch():
    code = "import sys, tokenloom.training.data.opening; print({'ray', 'torch', 'cv2'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
