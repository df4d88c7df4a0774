"""The guard: whether a step may change the weights, told by its loss and by the norm of its gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_DECAY = 0.99
_SETTLED = 100
"""Steps after which the usual norm is known well enough to call another one a spike."""

PATIENCE = 5
"""Steps in a row that may be left out before the training stops."""


@dataclass
class Guard:
    """spike: how many times the usual norm of the gradient is too many; None: any finite one will do.

    usual: the moving average of the norms of the steps that were taken, over about the last hundred; taken, skipped:
    how many there were; in_a_row: skipped ones since the last that was taken.
    """

    spike: float | None
    usual: float = 0.0
    taken: int = 0
    skipped: int = 0
    in_a_row: int = 0

    def look(self, loss: float, norm: float) -> str:
        """Why the step has to be left out; "" where it may be taken. Counts it either way."""
        reason = self._reason(loss, norm)
        if reason:
            self.skipped += 1
            self.in_a_row += 1
            return reason
        decay = min(_DECAY, self.taken / (self.taken + 1))  # the plain mean at first
        self.usual = decay * self.usual + (1 - decay) * norm
        self.taken += 1
        self.in_a_row = 0
        return ""

    def _reason(self, loss: float, norm: float) -> str:
        if not math.isfinite(loss):
            return f"the loss is {loss:g}"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm:g}"
        if self.spike and self.taken >= _SETTLED and norm > self.spike * self.usual > 0:
            return f"the gradient's norm is {norm:.3g}, {norm / self.usual:,.0f} times the usual {self.usual:.3g}"
        return ""

    def state(self) -> Tensor:
        return torch.tensor([self.usual, self.taken, self.skipped, self.in_a_row], dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        self.usual = float(state[0])
        self.taken, self.skipped, self.in_a_row = (int(one) for one in state[1:])
