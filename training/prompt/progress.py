"""How far generation is, for a person."""

from __future__ import annotations

import time

from rich.console import Console

from ...pipeline.commands.progress import Shown
from .draws import Step


class GenerationProgress(Shown):
    """What is being said, of which draws, and how many tokens a second."""

    def __init__(self, console: Console, draws: int) -> None:
        super().__init__(console)
        self._draws, self._tokens, self._begun = draws, 0, time.monotonic()

    def begin(self) -> None:
        """The clock starts."""
        self._begun = time.monotonic()

    def watch(self, step: Step) -> None:
        self._tokens = step.tokens
        self.show_line(
            f"{step.draws:,} of {self._draws:,} draws are done, {step.target}: step {step.step:,} of {step.steps:,}, "
            f"{self.rate}"
        )

    @property
    def rate(self) -> str:
        return f"{self._tokens / max(time.monotonic() - self._begun, 1e-9):,.0f} tokens/s"
