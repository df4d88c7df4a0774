"""How long a training lasts and what its learning rate is at which step: pure functions of the recipe and the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...pipeline.plan.recipe_file import RecipeError
from ..data.recipe import TrainingRecipe

_BASE_BATCH = 256
"""Samples that a base learning rate is meant for (arXiv 1706.02677)."""

_WARMUP = 0.02
"""Share of all tokens, where the recipe says nothing: 10 of 500 billion, as in the paper."""


@dataclass(frozen=True)
class Schedule:
    """steps: of the optimiser. step_tokens: of one step, inputs and targets, as the budgets have them on average.
    tokens, warmup: in all, and those over which the rate rises. largest: learning rate."""

    steps: int
    step_tokens: float
    tokens: float
    warmup: float
    largest: float

    def rate(self, step: int) -> float:
        """The learning rate of step `step`, from 0: rising linearly with the tokens that are seen when it is done, then
        along a half cosine to 0 (SGDR, arXiv 1608.03983, without restarts)."""
        begun, done = step * self.step_tokens, (step + 1) * self.step_tokens
        if begun < self.warmup:
            return self.largest * min(1.0, done / self.warmup)
        share = (begun - self.warmup) / (self.tokens - self.warmup)
        return self.largest * (1 + math.cos(math.pi * min(1.0, share))) / 2


def schedule_of(recipe: TrainingRecipe) -> Schedule:
    """Raises RecipeError for a warm-up that takes all of the training."""
    assert recipe.train is not None
    data, train = recipe.data, recipe.train
    step_tokens = data.batch_size * (sum(data.input_tokens) + sum(data.target_tokens)) / 2
    steps = train.steps or max(1, math.ceil((train.tokens or 0) / step_tokens))
    tokens = steps * step_tokens
    warmup = _WARMUP * tokens if train.warmup_tokens is None else float(train.warmup_tokens)
    if warmup >= tokens:
        with recipe.named():
            raise RecipeError(
                f"train.warmup_tokens: {warmup:,.0f} tokens of warm-up, and the training has {tokens:,.0f} in all "
                f"({steps:,} steps of {step_tokens:,.0f}): give fewer, or train for longer"
            )
    return Schedule(steps, step_tokens, tokens, warmup, train.base_learning_rate * data.batch_size / _BASE_BATCH)
