"""How long a training lasts, its rate at each step, and which steps may change the weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from small_trainings import small_recipe
from tokenloom.pipeline.plan.recipe_file import RecipeError
from tokenloom.training.data.recipe import load_training_recipe, shipped_training_recipes
from tokenloom.training.fit.guard import Guard
from tokenloom.training.fit.kept import kept_settings
from tokenloom.training.fit.run import check
from tokenloom.training.fit.schedule import Schedule, schedule_of
from tokenloom.training.fit.suspects import suspects


@given(some.integers(1, 400), some.floats(1, 1e6), some.floats(0, 0.99), some.floats(1e-6, 10))
def test_the_rate_rises_and_then_falls(steps, step_tokens, warm, largest):
    tokens = steps * step_tokens
    schedule = Schedule(steps, step_tokens, tokens, warm * tokens, largest)
    rates = np.array([schedule.rate(step) for step in range(steps)])
    peak = int(rates.argmax())
    assert (rates >= 0).all()
    assert (rates <= largest).all()
    assert (np.diff(rates[: peak + 1]) >= 0).all()
    assert (np.diff(rates[peak:]) <= 0).all()
    assert rates[peak] >= largest * (1 + math.cos(math.pi / (steps * (1 - warm) + 1e-9))) / 2 - 1e-9 or steps < 2


def test_the_papers_schedule():
    """500 billion tokens of 8,192 samples with 256 + 256, the first ten of warm-up; 1e-4 is of 256 samples."""
    schedule = schedule_of(load_training_recipe("4m21-b"))
    assert schedule.steps == math.ceil(500e9 / (8192 * 512))
    assert schedule.largest == pytest.approx(1e-4 * 32)
    at_half = schedule.rate(round((10e9 + 245e9) / schedule.step_tokens))
    assert at_half == pytest.approx(schedule.largest / 2, rel=1e-3)
    assert schedule.rate(round(5e9 / schedule.step_tokens)) == pytest.approx(schedule.largest / 2, rel=1e-2)
    assert schedule.rate(schedule.steps - 1) < 1e-9 * schedule.largest


def test_budgets_count_by_their_means(tmp_path):
    recipe = small_recipe(tmp_path, data={"input_tokens": [10, 20], "target_tokens": 5}, steps=None, tokens="1e3")
    schedule = schedule_of(recipe)
    assert (schedule.step_tokens, schedule.steps, schedule.warmup) == (160, 7, 0.02 * 7 * 160)


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"tokens": 5}, "train: say how long to train: `steps`, or `tokens`, and not both"),
        ({"steps": None}, "train: say how long to train"),
        ({"warmup_tokens": 1e9}, r"train.warmup_tokens: 1,000,000,000 tokens of warm-up, and the training has 3,840"),
        ({"accumulation": 3}, "data.batch_size: 8 samples can't be dealt out evenly to 1 workers in 3 parts"),
        ({"learning_rate": 1}, "train.learning_rate: unknown key; did you mean 'base_learning_rate'"),
        ({"every": 0}, "train.every: input should be greater than or equal to 1"),
    ],
)
def test_mistakes(tmp_path, train, said):
    with pytest.raises(RecipeError, match=r"run.yaml:\d+: " + said):
        check(small_recipe(tmp_path, **train))


def test_shipped_recipes_are_whole():
    assert shipped_training_recipes() == ["4m21-b", "4m21-xl", "tiny-demo"]
    for name in shipped_training_recipes():
        kept = kept_settings(load_training_recipe(name))
        assert kept["model.size"] in ("tiny", "B", "XL")


def test_the_guard_leaves_out_what_is_no_number_and_what_jumps():
    guard = Guard(spike=10)
    assert guard.look(1.0, 50.0) == ""  # nothing is usual yet
    for _ in range(200):
        assert guard.look(1.0, 1.0) == ""
    assert guard.look(float("nan"), 1.0) == "the loss is nan"
    assert guard.look(1.0, float("inf")) == "the gradient's norm is inf"
    assert guard.look(1.0, 30.0).startswith("the gradient's norm is 30, ")
    assert (guard.skipped, guard.in_a_row, guard.taken) == (3, 3, 201)
    again = Guard(spike=10)
    again.restore(guard.state())
    assert again == guard
    assert guard.look(1.0, 2.0) == ""
    assert guard.in_a_row == 0
    assert Guard(spike=None, usual=1.0, taken=500).look(1.0, 1e9) == ""


def test_suspects_are_those_that_are_no_number_or_the_largest():
    positions, losses = np.array([7, 8, 9]), np.array([[1.0, 2.0], [1.0, -np.inf], [3.0, 2.0]])
    said = suspects(positions, losses, ["depth", "caption"], "sample {}".format)
    assert said[:2] == [
        "no sample by itself; the largest losses for their modality are",
        "depth of sample 9: 3",
    ]
    assert len(said) == 6  # not the one that has nothing to say
    losses[1, 0] = np.nan
    assert suspects(positions, losses, ["depth", "caption"], "sample {}".format) == ["depth of sample 8: nan"]
    said = suspects(positions, np.full((3, 2), np.inf), ["depth", "caption"], str)
    assert said == ["every sample of the step, in depth, caption: the weights themselves are at fault"]
