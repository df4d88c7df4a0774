"""The figures by which one follows a training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PEAKS = {"H200": 989e12, "H100": 989e12, "H800": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Floating point operations a second in bfloat16, dense, by what stands in a GPU's name (NVIDIA's data sheets)."""


@dataclass(frozen=True)
class Figures:
    """One step, as it was at its end.

    step: steps done by now. tokens: seen by now, by the budgets of inputs and targets. loss: of the step, over all
    processes; losses: each modality's mean cross-entropy in nats, None where nothing was to be said. used: tokens that
    samples really had. gradient_norm: before clipping. left_out: why the step changed nothing, "" where it did;
    suspects: then, what of which samples made it so. tokens_per_second: of all processes together, by the budgets, over
    the last few steps. mfu: the share of the GPUs' arithmetic that was of use; None where the device isn't known.
    """

    step: int
    tokens: int
    learning_rate: float
    loss: float
    losses: Mapping[str, float | None]
    gradient_norm: float
    used: int
    tokens_per_second: float
    mfu: float | None = None
    left_out: str = ""
    suspects: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """By name; numbers that JSON lacks are None."""
        values: dict[str, Any] = {
            **{name: value for name, value in vars(self).items() if name not in ("losses", "left_out", "suspects")},
            "losses": {name: _finite(value) for name, value in self.losses.items()},
            **({"left_out": self.left_out, "suspects": list(self.suspects)} if self.left_out else {}),
        }
        return {name: _finite(value) for name, value in values.items()}


class Speed:
    """A moving average of tokens a second."""

    def __init__(self) -> None:
        self._before = time.perf_counter()
        self._seconds = self._tokens = 0.0

    def after(self, tokens: float) -> float:
        now = time.perf_counter()
        self._seconds = 0.9 * self._seconds + now - self._before
        self._tokens = 0.9 * self._tokens + tokens
        self._before = now
        return self._tokens / max(self._seconds, 1e-9)


def peak_flops(device_name: str) -> float | None:
    """Of a GPU by its name, in bfloat16; None of those that aren't known."""
    return next((flops for part, flops in _PEAKS.items() if part in device_name), None)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
