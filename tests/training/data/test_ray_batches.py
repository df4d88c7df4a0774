"""Batches through Ray Data: those that torch's loader gives, in its order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from tokenloom.training.data.loader import TrainingBatches
from tokenloom.training.data.ray_batches import RayBatches, _Maker
from tokenloom.training.data.recipe import TrainingRecipe
from training_recipes import illustrated, noise, written

STEPS = 18
"""More than an actor makes one after another."""


@pytest.fixture
def mine(tmp_path) -> TrainingRecipe:
    """A recipe with pixels and embeddings among its inputs."""
    one = {"url": str(illustrated(tmp_path, noise())), "inputs": ["pixels", "corners", "caption"]}
    small = {"masking": "all2all", "input_tokens": 20, "target_tokens": 20, "batch_size": 16}
    return written(tmp_path / "train.yaml", {"data": {"datasets": {"a": one}, **small}})


def alike(made: Iterable[Mapping[str, np.ndarray]], batches: RayBatches, torch_batches: TrainingBatches) -> None:
    """Says that what is made of `batches` is what torch's loader gives."""
    count = 0
    for batch, expected in zip(made, torch_batches, strict=False):
        count += 1
        np.testing.assert_array_equal(batch["positions"], expected["positions"].numpy())
        np.testing.assert_array_equal(batch["skipped"], expected["skipped"].numpy())
        for side in ("inputs", "targets", "arrays"):
            for name, tensor in expected[side].items():
                found = batch[f"{side}.{name}"]
                assert found.dtype == tensor.numpy().dtype
                np.testing.assert_array_equal(found, tensor.numpy())
        assert batches.state_after(batch) == torch_batches.state_after(expected)
    assert count == STEPS


def test_ray_data_gives_the_same_batches(ray_session, mine):
    """To a rank that goes on from a state."""
    state: dict[str, Any] = {**TrainingBatches(mine).state_dict(), "position": 48}
    batches, torch_batches = RayBatches(mine, 1, 2), TrainingBatches(mine, 1, 2)
    batches.load_state_dict(state)
    torch_batches.load_state_dict(state)
    alike(batches.dataset(STEPS).iter_batches(batch_size=batches.size), batches, torch_batches)  # type: ignore[arg-type]


def test_its_actors_make_the_same_batches(mine):
    """From the beginning."""
    batches = RayBatches(mine, 0, 2)
    made = _Maker(batches._run)({"id": np.arange(STEPS)})
    alike(made, batches, TrainingBatches(mine, 0, 2))
