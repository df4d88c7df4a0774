"""Two processes that share a network out give what one gives; without Ray, which test_trainings has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from small_trainings import Heard, losses, poisoned, small_recipe, trained_here, very_small
from together import together
from tokenloom.training.data.recipe import TrainingRecipe
from tokenloom.training.fit.trainer import Place
from tokenloom.training.fit.training import train
from training_recipes import two_datasets

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "parts": {"accumulation": 2, "checkpointing": True},
    "token": {"loss": "token", "clip": 0.5},
}
"""Keys of `train`, by name."""


def of_all_variants(rank: int, world: int, folder: Path) -> dict[str, list[float]]:
    place = Place(rank, world)
    return {
        name: losses(small_recipe(folder, f"{name}{rank}of{world}", steps=20, **more), 20, place)
        for name, more in VARIANTS.items()
    }


def test_the_losses_of_one_process(tmp_path):
    two_datasets(tmp_path)
    alone, (first, second) = of_all_variants(0, 1, tmp_path), together(of_all_variants, tmp_path)
    assert first == second
    for name, own in alone.items():
        assert first[name] == pytest.approx(own, abs=1e-5), name
    assert alone["plain"] != alone["token"]


def to_its_end(rank: int, world: int, recipe: TrainingRecipe) -> list[Any]:
    """The reason and the suspects of each step."""
    heard = Heard()
    with very_small():
        train(recipe, Place(rank, world), heard)
    return [(one.left_out, sorted(one.suspects)) for one in heard.figures]


def test_a_step_that_is_left_out(tmp_path):
    """Its checkpoint is as good as any other: one process goes on from it."""
    alone, again = Heard(), Heard()
    trained_here(poisoned(tmp_path, "alone", every=1, steps=8), alone)
    recipe = poisoned(tmp_path, "two", every=1, steps=8, keep=8)
    told = together(to_its_end, recipe)[0]
    odd = [step for step, one in enumerate(alone.figures, 1) if one.left_out]
    assert odd
    assert [tuple(one) for one in told] == [(one.left_out, sorted(one.suspects)) for one in alone.figures]
    for later in range(odd[0] + 1, 9):
        (tmp_path / f"two/checkpoints/{later:08d}/index.json").unlink()
    trained_here(recipe, again)
    assert again.said[0] == f"going on from step {odd[0]} of 8"
    left = [one.loss for one in alone.figures[odd[0] :] if not one.left_out]
    assert [one.loss for one in again.figures if not one.left_out] == pytest.approx(left, abs=1e-5)
