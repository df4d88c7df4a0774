"""What happens at which step of a training: pure functions, so that a resumed training needs to know its step alone."""

from __future__ import annotations

import math

import numpy as np

_LAST_SHARE = 0.01
_SEED_RANGE = 2**64


def learning_rate(step: int, steps: int, largest: float, warmup: float) -> float:
    """Of step `step`, from 0: rising linearly for the share `warmup` of all steps, then along a half cosine (SGDR,
    arXiv 1608.03983, without restarts) down to 1 % of `largest`."""
    rising = round(warmup * steps)
    if step < rising:
        return largest * (step + 1) / rising
    falling = max(1, steps - rising - 1)
    height = (1 + math.cos(math.pi * min(1.0, (step - rising) / falling))) / 2
    return largest * (_LAST_SHARE + (1 - _LAST_SHARE) * height)


def average_decay(step: int, largest: float) -> float:
    """Of the moving average of the weights, after step `step`, from 0. Small at first, so that the random weights of
    the beginning are soon forgotten."""
    return min(largest, (1 + step) / (10 + step))


def step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of torch's generators for one step of one worker."""
    return int(np.random.SeedSequence([seed % _SEED_RANGE, step, rank]).generate_state(1, np.uint64)[0])


class Batches:
    """Which examples each step takes. Every epoch is a permutation of all `examples`, drawn by PCG64 from the seed and
    the epoch; a batch may end one epoch and begin the next, so that none is smaller than the others."""

    def __init__(self, examples: int, batch_size: int, seed: int) -> None:
        self._examples, self._batch_size, self._seed = examples, batch_size, seed
        self._epochs: dict[int, np.ndarray] = {}

    def at(self, step: int, rank: int = 0, world: int = 1) -> np.ndarray:
        """int64 (batch_size / world,): the part of worker `rank` of `world`."""
        size = self._batch_size // world
        start = step * self._batch_size + rank * size
        epochs = range(start // self._examples, (start + size - 1) // self._examples + 1)
        # Only what this step needs is kept: a permutation of many examples is large.
        self._epochs = {epoch: self._permutation(epoch) for epoch in epochs}
        parts = []
        for epoch, order in self._epochs.items():
            first = epoch * self._examples
            parts.append(order[max(0, start - first) : start + size - first])
        return np.concatenate(parts)

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch in self._epochs:
            return self._epochs[epoch]
        entropy = np.random.SeedSequence([self._seed % _SEED_RANGE, epoch])
        return np.random.Generator(np.random.PCG64(entropy)).permutation(self._examples)
