"""A tokenizer whose training kills its own process, for tests of what goes on after that."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tokenloom.tokenizers.vq.vq import VQParams, VQTokenizer


class MortalParams(VQParams):
    """deaths: a file of numbers. A training dies at the batch of the first one, and takes it out; where the file is
    empty it lives."""

    deaths: str


class MortalVQ(VQTokenizer):
    Params = MortalParams
    batches = 0

    def design(self, examples, seed):
        network = super().design(examples, seed)
        self.batches = 0  # those that its start was computed of aren't steps
        return network

    def to_batch(self, examples):
        self.batches += 1
        file = Path(self.params.deaths)
        first, *later = file.read_text().split() or ["never"]
        if first == str(self.batches):
            file.write_text(" ".join(later))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().to_batch(examples)
