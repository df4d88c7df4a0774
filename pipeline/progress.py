"""Progress of a run, for a person: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ..tokenizers.fit_figures import Figures
from .run import Tally

_EVERY = 10.0
"""Seconds between plain lines."""


class RunProgress:
    """Shows a tally as it grows: per modality labels made, per second, failed, and how long the rest will take."""

    def __init__(self, console: Console, total_bytes: int) -> None:
        """total_bytes: of the encoded images that the run has to read, as far as listings tell."""
        self._console = console
        self._total = total_bytes
        self._began = time.monotonic()
        self._spoke = self._began
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None

    def __enter__(self) -> RunProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        self._console.print(f"{text} ...", style="dim", highlight=False)
        self._began = time.monotonic()

    def update(self, tally: Tally) -> None:
        if self._live:
            self._live.update(self.table(tally))
        elif time.monotonic() - self._spoke > _EVERY:
            self._spoke = time.monotonic()
            failed = sum(tally.failed.values())
            self._console.print(
                f"{tally.samples} samples, {self._rate(tally.samples)}, {self._eta(tally)} left, {failed} quarantined",
                highlight=False,
            )

    def update_fit(self, figures: Figures) -> None:
        text = (
            f"step {figures.step:,}, loss {figures.loss:.4g}, {figures.usage:.0%} of the codes in use, perplexity "
            f"{figures.perplexity:,.0f}, {figures.examples_per_second:,.0f} examples/s"
        )
        if self._live:
            self._live.update(text)
        elif time.monotonic() - self._spoke > _EVERY:
            self._spoke = time.monotonic()
            self._console.print(text, highlight=False)

    def table(self, tally: Tally) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in ("modality", "labels", "rate", "left", "quarantined"):
            table.add_column(heading, justify="left" if heading == "modality" else "right")
        for name, rows in tally.rows.items():
            table.add_row(name, f"{rows:,}", self._rate(rows), self._eta(tally), str(tally.failed.get(name, 0) or "-"))
        return table

    def _rate(self, count: int) -> str:
        return f"{count / max(1e-9, time.monotonic() - self._began):,.1f}/s"

    def _eta(self, tally: Tally) -> str:
        share = tally.bytes / self._total if self._total else 0.0
        if not 0 < share < 1:
            return "-"
        return duration((time.monotonic() - self._began) * (1 - share) / share)


def duration(seconds: float) -> str:
    """A length of time in at most two units: 42 s, 3 min 20 s, 5 h 10 min, 2 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(index for index, (_, size) in enumerate(units) if whole >= size)
    parts = []
    for name, size in units[first : first + 2]:
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts)
