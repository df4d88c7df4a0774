"""How far an evaluation is, for a person."""

from __future__ import annotations

import time

from rich.table import Table

from ...pipeline.commands.progress import Shown, duration


class EvaluationProgress(Shown):
    """What is being done, of how many samples, and the time that is left of it."""

    _what, _begun = "", 0.0

    def watch(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._what, self._begun = what, time.monotonic()
        left = duration((time.monotonic() - self._begun) / done * (total - done)) if done else "?"
        said = f"{what}: {done:,} of {total:,} samples, left {left}"
        self.show(lambda: _line(said), lambda: said)


def _line(said: str) -> Table:
    table = Table.grid()
    table.add_row(said)
    return table
