"""The report: a page about a run or a dataset, written again and again while it grows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from ..checks.reasons import Group
from ..checks.status import Status
from ..engine.spent import ACTIVITIES, StageTimes
from ..engine.tally import Tally
from ..storage.store import StorageError, Store, absolute_url, redact
from .console import counted
from .page import Section, page

_TYPE = "text/html; charset=utf-8"
_EVERY = 5.0
_RELOAD = 5
"""Seconds after which a browser loads a page again that isn't done."""


class ReportError(ValueError):
    """No report can be written there."""


class ReportFile:
    """A page at a path or URL. It appears at once, and is replaced as a whole."""

    def __init__(self, target: str, output: str, options: Mapping[str, Any] | None = None) -> None:
        """output: the dataset that it is about. options: for object storage."""
        self.url, dataset = absolute_url(target), absolute_url(output)
        folder, _, self._name = self.url.rpartition("/")
        if not self._name.endswith((".html", ".htm")) or folder.endswith(("/", ":")):
            like = f"{redact(target)}report.html" if target.endswith("/") or not target else f"{redact(target)}.html"
            raise ReportError(f"--report {redact(target)}: name a file that ends in .html, as {like}")
        if f"{_real(self.url)}/".startswith(f"{_real(dataset)}/"):
            raise ReportError(
                f"--report {redact(target)}: that is in the dataset, where `verify` finds it foreign; put it beside it"
            )
        self._store = Store(folder or "/", options if "://" in target else None)
        self._title = redact(dataset)
        self.problem = ""

    def write(self, lines: Iterable[str], sections: Iterable[Section], last: bool) -> None:
        """last: the page that stays. Raises StorageError."""
        said = [f"{time_of_day()}: {line}" if index == 0 else line for index, line in enumerate(lines)]
        self._store.replace(self._name, page(self._title, said, sections, 0 if last else _RELOAD), _TYPE)

    def rewrite(self, lines: Iterable[str], sections: Iterable[Section], last: bool) -> None:
        """As `write`, of a page that was written; what goes wrong doesn't end what it tells of: `problem` says it."""
        try:
            self.write(lines, sections, last)
            self.problem = ""
        except (StorageError, OSError) as error:
            self.problem = str(error)


def _real(address: str) -> str:
    """Where links lead, of a path."""
    return address if "://" in address else str(Path(address).resolve())


class RunReport(ReportFile):
    """What a run does."""

    def __init__(self, target: str, output: str, options: Mapping[str, Any]) -> None:
        super().__init__(target, output, options)
        self._sections: list[Section] = []
        self._wrote = time.monotonic()
        self.write(["listing the corpus and the output"], [], last=False)

    def doing(self, what: str, often: bool = False) -> None:
        """What the run does now. often: of something that is told again and again."""
        if not often or time.monotonic() - self._wrote >= _EVERY:
            self._write([what], last=False)

    def labelled(self, tally: Tally, table: Section, left: str) -> None:
        """table: of the modalities. left: how long the rest takes, "" where that isn't known."""
        if time.monotonic() - self._wrote < _EVERY and self._sections:
            return
        self._sections = [table, *of_times(tally.times), *of_reasons(tally.reasons.groups())]
        done = f"labelling, {counted(tally.samples, 'sample')} in {counted(tally.units, 'unit')} so far"
        self._write([f"{done}, {left} left" if left else done], last=False)

    def ended(self, tally: Tally | None, table: Section | None, lines: Sequence[str]) -> None:
        if tally is not None and table is not None:
            self._sections = [table, *of_times(tally.times), *of_reasons(tally.reasons.groups())]
        self._write(lines, last=True)

    def _write(self, lines: Sequence[str], last: bool) -> None:
        self.rewrite(lines, self._sections, last)
        self._wrote = time.monotonic()


@contextmanager
def stop_told(report: RunReport | None) -> Iterator[None]:
    """What ends the block stands in the report, too."""
    try:
        yield
    except BaseException as error:
        if report:
            report.ended(None, None, [f"stopped: {error}" if isinstance(error, Exception) else "stopped"])
        raise


def time_of_day() -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def of_times(times: Mapping[str, StageTimes]) -> Iterator[Section]:
    """Where time goes, by stage, and what took long."""
    if not times:
        return
    columns = ["workers of", "units", "samples", "seconds", "samples/s of one at work"]
    rows = [
        [name, f"{one.units:,}", f"{one.samples:,}", f"{one.total:,.1f}", _rate(one)] for name, one in times.items()
    ]
    bars = {name: {part: one.seconds[part] / (one.total or 1.0) for part in ACTIVITIES} for name, one in times.items()}
    notes = [
        "Seconds of all workers together, until their last unit. Of a stage, idle is waiting for units: the one that "
        "idles least is the one that the others wait for. Of the reading, it is waiting for stages that have room."
    ]
    yield Section("Where time goes", columns, rows, notes=notes, bars=bars, parts=ACTIVITIES)
    yield Section(
        "Labelers",
        ["labeler", "seconds", "of its stage", "ms a sample"],
        [
            [model, f"{spent:,.1f}", f"{spent / one.total:.0%}", f"{1000 * spent / max(1, one.samples):,.1f}"]
            for one in times.values()
            for model, spent in one.models.most_common()
        ],
    )
    yield Section(
        "Slowest units",
        ["unit", "stage", "samples", "seconds", "mean", "mostly"],
        [
            [one.unit, name, f"{one.samples:,}", f"{one.seconds:,.2f}", f"{stage.worked / stage.units:,.2f}", one.most]
            for name, stage in times.items()
            for one in stage.stragglers
        ],
        texts=["stage", "mostly"],
    )


def _rate(times: StageTimes) -> str:
    return f"{times.samples / times.worked:,.1f}" if times.worked > 0 else "-"


def of_reasons(groups: Sequence[Group]) -> Iterator[Section]:
    """What failed, by reason."""
    if groups:
        yield Section(
            "Quarantine",
            ["modality", "labels", "reason", "finding", "for one"],
            [[one.modality, f"{one.count:,}", one.reason, one.error, one.key] for one in groups],
            texts=["reason", "finding", "for one"],
        )


def of_status(status: Status, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Section]:
    """columns, rows: of its modalities."""
    return [Section("Modalities", columns, rows), *of_reasons(status.reasons)]
