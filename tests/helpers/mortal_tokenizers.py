"""A tokenizer whose training kills its own process once, for tests of what goes on after that."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tokenloom.tokenizers.vq.vq import VQParams, VQTokenizer


class MortalParams(VQParams):
    """grave: a file; while it isn't there, the training dies at its `last` batch, and leaves it."""

    grave: str
    last: int = 7


class MortalVQ(VQTokenizer):
    Params = MortalParams
    batches = 0

    def design(self, examples, seed):
        network = super().design(examples, seed)
        self.batches = 0  # those that its start was computed of aren't steps
        return network

    def to_batch(self, examples):
        self.batches += 1
        grave = Path(self.params.grave)
        if self.batches == self.params.last and not grave.exists():
            grave.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().to_batch(examples)
