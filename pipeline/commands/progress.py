"""Progress of runs and of trainings, for a person."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table

from ..fitting.listener import FitListener
from ..run import RunListener
from .console import counted
from .page import Section
from .report import RunReport

if TYPE_CHECKING:
    from typing_extensions import Self

    from ...tokenizers.fitting.figures import Figures
    from ...tokenizers.fitting.settings import FitSettings
    from ..engine.tally import Tally

_EVERY = 10.0
"""Seconds between plain lines, and those for which a run has to go on before its speed is told."""
_UNKNOWN = "-"
_COLUMNS = ("modality", "labels", "rate", "left", "quarantined")


class Shown:
    """Something that grows: a live table on a terminal, a plain line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._spoke = float("-inf")
        self._live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        self._console.print(f"{text} ...", style="dim")

    def show(self, table: Callable[[], Table], line: Callable[[], str], last: bool = False) -> None:
        """last: of several; it is always printed."""
        if self._live:
            self._live.update(table())
        elif last or time.monotonic() - self._spoke > _EVERY:
            self._spoke = time.monotonic()
            self._console.print(line())

    def show_line(self, said: str) -> None:
        """What one line tells."""
        table = Table.grid()
        table.add_row(said)
        self.show(lambda: table, lambda: said)


class SamplesProgress(Shown):
    """What is being done with samples, of how many, and the time that is left of it."""

    _what, _begun = "", 0.0

    def watch(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._what, self._begun = what, time.monotonic()
        left = duration((time.monotonic() - self._begun) / done * (total - done)) if done else "?"
        self.show_line(f"{what}: {done:,} of {total:,} samples, left {left}")


class FitProgress(Shown, FitListener):
    """The rounds of k-means; the training of a tokenizer's network: its loss, the codes that it uses, its speed."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._skipped = 0
        self._first_round = 0.0

    def fitting(self, modality: str, done: int, of: int) -> None:
        if not done:
            self._first_round = time.monotonic()
        left = duration((time.monotonic() - self._first_round) / done * (of - done)) if done else _UNKNOWN
        said = {"fitting": modality, "round": f"{done + 1} of {of}", "left": left}
        known = {name: value for name, value in said.items() if value != _UNKNOWN}
        self.show(lambda: _table([[*said.values()]], *said), lambda: ", ".join(f"{n} {v}" for n, v in known.items()))

    def trained(self, figures: Figures, settings: FitSettings) -> None:
        self._skipped += figures.skipped
        said = self._said(figures, settings)
        self.show(
            lambda: _table([[*said.values()]], *said),
            lambda: ", ".join(f"{name} {value}" for name, value in said.items()),
            last=figures.step == settings.steps,
        )

    def _said(self, figures: Figures, settings: FitSettings) -> Mapping[str, str]:
        rate = figures.examples_per_second / settings.batch_size
        left = (settings.steps - figures.step) / rate if rate else 0.0
        said = {
            "step": f"{figures.step:,} of {settings.steps:,}",
            "loss": f"{figures.loss:.4g}",
            "codes used": f"{100 * figures.usage:.1f} %",
            "perplexity": f"{figures.perplexity:,.1f}",
            "steps/s": f"{rate:.2f}",
            "left": duration(left),
        }
        return said | ({"not finite": str(self._skipped)} if self._skipped else {})


class RunProgress(FitProgress, RunListener):
    """Shows a tally as it grows: per modality labels made, per second, failed, and how long the rest will take. The
    clock starts with the first unit that is done: until then workers start, and load what they need."""

    def __init__(self, console: Console, total_bytes: int, report: RunReport | None = None) -> None:
        """total_bytes: of the encoded images that the run has to read, as far as listings tell. report: kept up to
        date."""
        super().__init__(console)
        self._report = report
        self._phases = [("starting", time.monotonic())]
        self._total = total_bytes
        self._began = 0.0
        self._before: Tally | None = None
        self._now: Tally | None = None
        if report:
            report.doing("starting")

    def say(self, text: str) -> None:
        super().say(text)
        if self._report:
            self._report.doing(text)
        self._before = None
        self._phases.append((text.partition(" (")[0], time.monotonic()))

    def show(self, table: Callable[[], Table], line: Callable[[], str], last: bool = False) -> None:
        super().show(table, line, last)
        if self._report and self._before is None:  # a tokenizer that is fitted
            self._report.doing(line(), often=True)

    def note(self, text: str) -> None:
        self._console.print(text, style="dim", soft_wrap=True)

    def labelled(self, tally: Tally) -> None:
        if self._before is None:
            self._began, self._before = time.monotonic(), replace(tally, rows=dict(tally.rows))
        self._now = tally
        self.show(lambda: _table(self._rows(tally), *_COLUMNS), lambda: self._line(tally))
        if self._report:
            left = self._eta(tally)
            self._report.labelled(tally, self._section(tally), "" if left == _UNKNOWN else left)

    def phases(self) -> list[tuple[str, float]]:
        """What the run did until now, one after another, and the seconds that each took."""
        ends = [*(began for _, began in self._phases[1:]), time.monotonic()]
        return [(name, end - began) for (name, began), end in zip(self._phases, ends, strict=True)]

    def ended(self, lines: Sequence[str]) -> None:
        """Has the report say how the run ended; tells where that couldn't be written."""
        if self._report:
            self._report.ended(self._now, self._now and self._section(self._now), lines)
            if self._report.problem:
                self._console.print(f"the report isn't up to date: {self._report.problem}", soft_wrap=True)

    def _section(self, tally: Tally) -> Section:
        return Section("Modalities", _COLUMNS, self._rows(tally))

    def _rows(self, tally: Tally) -> list[list[str]]:
        left, before = self._eta(tally), self._before.rows if self._before else {}
        return [
            [name, f"{rows:,}", self._rate(rows, before.get(name, 0)), left, str(tally.failed.get(name, 0) or "-")]
            for name, rows in tally.rows.items()
        ]

    def _line(self, tally: Tally) -> str:
        rate, left = self._rate(tally.samples, self._before.samples if self._before else 0), self._eta(tally)
        known = [rate, f"{left} left"] if left != _UNKNOWN else [rate] if rate != _UNKNOWN else []
        done = f"so far {counted(tally.samples, 'sample')}"  # the last such line is seldom of the end
        return ", ".join([done, *known, f"{sum(tally.failed.values())} quarantined"])

    def _rate(self, count: int, before: int) -> str:
        spent = time.monotonic() - self._began
        return _UNKNOWN if spent < _EVERY else f"{(count - before) / spent:,.1f}/s"

    def _eta(self, tally: Tally) -> str:
        spent, made = time.monotonic() - self._began, tally.bytes - (self._before.bytes if self._before else 0)
        if spent < _EVERY or made <= 0 or tally.bytes >= self._total:
            return _UNKNOWN
        return duration(spent * (self._total - tally.bytes) / made)


def _table(rows: Sequence[Sequence[str]], *headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "modality" else "right")
    for row in rows:
        table.add_row(*row)
    return table


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
