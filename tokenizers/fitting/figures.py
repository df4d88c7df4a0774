"""The figures by which one follows a training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figures:
    """One step, as it was at its end.

    step: steps done by now. loss: the sum of the parts, `reconstruction` (the objective), `quantizer` (what holds the
    latents near their codes) and, where there is one, `perceptual` (times its weight), means over the batch of all
    workers. usage: share of the codes among recent tokens
    of the first worker; perplexity: of these. gradient_norm: before clipping. skipped: whether the step's loss or
    gradient wasn't finite, so that it changed nothing. examples_per_second: of all workers together, over the last few
    steps.
    """

    step: int
    loss: float
    parts: Mapping[str, float]
    usage: float
    perplexity: float
    gradient_norm: float
    learning_rate: float
    skipped: bool
    examples_per_second: float

    def to_json(self) -> dict[str, Any]:
        """By name; numbers that JSON lacks are None."""
        values = asdict(self)
        flat = {**values, **{f"{name}_loss": value for name, value in self.parts.items()}}
        del flat["parts"]
        return {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in flat.items()}


class Speed:
    """A moving average of examples per second."""

    def __init__(self) -> None:
        self._before = time.perf_counter()
        self._seconds = 0.0
        self._examples = 0.0

    def after(self, examples: int) -> float:
        now = time.perf_counter()
        self._seconds = 0.9 * self._seconds + now - self._before
        self._examples = 0.9 * self._examples + examples
        self._before = now
        return self._examples / self._seconds
