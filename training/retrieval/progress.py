"""How far a retrieval is, for a person."""

from __future__ import annotations

import time

from rich.table import Table

from ...pipeline.commands.progress import Shown, duration


class RetrievalProgress(Shown):
    """Samples that were looked through, and the time that is left."""

    _begun: float | None = None

    def watch(self, done: int, total: int) -> None:
        self._begun = self._begun or time.monotonic()
        left = duration((time.monotonic() - self._begun) / done * (total - done)) if done else "?"
        said = f"{done:,} of {total:,} samples, left {left}"
        self.show(lambda: _line(said), lambda: said)


def _line(said: str) -> Table:
    table = Table.grid()
    table.add_row(said)
    return table
