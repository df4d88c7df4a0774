"""What the commands `verify`, `status` and `quarantine` do and print."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from itertools import count, groupby, islice

from rich.console import Console
from rich.console import Group as Lines
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ..checks.nulls import told_null
from ..checks.quarantine import Case, cases, list_failures
from ..checks.reasons import Group
from ..checks.status import LedgerCounts, ModalityStatus, Status, read_status
from ..checks.verify import Report
from ..checks.verify import verify as verify_dataset
from ..checks.verify_unit import Fault
from ..corpus.left_out import LEFT_OUT, few
from ..corpus.refusals import how_many
from ..dataset.layout import CORPUS
from ..dataset.ledger import MADE_WITHOUT
from ..dataset.manifest import NoDatasetError, require_manifest, ways_on
from ..storage.store import Store
from .console import counted, plain_console
from .printable import printable
from .progress import duration
from .report import ReportFile, of_status

_REFRESH = 5.0
_FEW_BROKEN = 3
"""Broken parts of a corpus that are told one by one."""

_QUIET = 30.0
_MOST_REASONS = 5
_STATUS_COLUMNS = ("modality", "units", "samples", "done", "quarantined", "rate", "left")
_MOST_FAULTS = 20
_MOST_CASES = 1000

_PROBLEMS = {
    "damaged": "bytes that aren't as they were written",
    "missing": "objects that are missing",
    "misplaced": "shards that aren't what their names say",
    "contradiction": "objects that contradict each other",
    "duplicate": "keys that aren't unique",
    "foreign": "objects that don't belong here",
    "stale": "modalities that aren't made from what the dataset holds now",
    "unfinished": "what isn't finished yet",
}


def verify(url: str, deep: bool, as_json: bool) -> bool:
    """Whether the dataset is sound; prints what isn't."""
    store = Store(url)
    if as_json:
        report = verify_dataset(store, deep)
        print(json.dumps({"ok": report.ok, **asdict(report)}, indent=2))
        return report.ok
    console = plain_console()
    with _bar(console) as bar:
        task = bar.add_task("units", total=None)
        report = verify_dataset(
            store, deep, lambda so_far, units: bar.update(task, completed=so_far.units, total=units)
        )
    _print_report(console, report)
    return report.ok


def _bar(console: Console) -> Progress:
    columns = (TextColumn("checking units"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _print_report(console: Console, report: Report) -> None:
    read = f"{counted(report.shards, 'shard')} of {counted(report.modalities, 'modality', 'modalities')} read, "
    read += f"{counted(report.samples, 'sample')} in {counted(report.units, 'unit')}, {readable_size(report.bytes)}"
    if report.ok:
        console.print(f"{read}: all as written, nothing missing, nothing foreign", soft_wrap=True)
        return
    counts = Counter(fault.problem for fault in report.faults)
    for problem, title in _PROBLEMS.items():
        faults = [fault for fault in report.faults if fault.problem == problem]
        if faults:
            console.print(f"{problem}: {title}", style="bold")
            _print_faults(console, faults)
    listed = ", ".join(f"{counts[problem]} {problem}" for problem in _PROBLEMS if counts[problem])
    console.print(f"{read}\n{counted(len(report.faults), 'finding')}: {listed}", soft_wrap=True)


def _print_faults(console: Console, faults: Sequence[Fault]) -> None:
    shown = faults[:_MOST_FAULTS]
    for what, alike in groupby(shown, key=lambda fault: (fault.what, fault.way_out)):
        _print_whole(console, (fault.object for fault in alike))
        console.print(Padding(Text(printable(what[0])), (0, 0, 0, 4), expand=False))
        console.print(Padding(Text(f"-> {printable(what[1])}", style="green"), (0, 0, 0, 4), expand=False))
    if len(faults) > len(shown):
        console.print(f"  and {len(faults) - len(shown):,} more; --json lists all")
    console.print()


def _print_whole(console: Console, names: Iterable[str]) -> None:
    """Each on a line of its own, however narrow the terminal is: so that it can be copied."""
    for name in names:
        console.print(Text(f"  {printable(name)}"), soft_wrap=True)


def status(url: str, watch: bool, as_json: bool, report: str | None = None) -> None:
    """Prints how far the dataset is; with `watch` again and again, from its beginning until it is finished. report: a
    page of the same."""
    store, console = Store(url), plain_console()
    ledgers = LedgerCounts(store)
    page = ReportFile(report, url) if report is not None else None
    write = page and page.write
    live = Live(console=console, auto_refresh=False) if watch and console.is_terminal and not as_json else None
    with live or nullcontext(), _until_stopped():
        if watch:
            _await_dataset(store)
        while True:
            now = read_status(store, ledgers)
            if page and write:
                lines = [line for line in _status_notes(now) if line]
                sections = of_status(now, _STATUS_COLUMNS, [*_status_rows(now)])
                write(lines, sections, last=now.finished or not watch)
                write = page.rewrite
                if page.problem:
                    print(f"the report isn't up to date: {page.problem}", file=sys.stderr, flush=True)
            if as_json:
                print(json.dumps({"finished": now.finished, **asdict(now)}, indent=None if watch else 2), flush=True)
            elif live:
                live.update(Lines(_status_table(now), "", *map(Text, _status_notes(now))), refresh=True)
            else:
                console.print(_status_table(now))
                console.print("", *_status_notes(now), sep="\n", soft_wrap=True)
            if now.finished or not watch:
                return
            time.sleep(_REFRESH)


def _await_dataset(store: Store) -> None:
    """Waits for the first manifest, which a run writes once it has listed the corpus."""
    for tries in count():
        try:
            require_manifest(store)
            return
        except NoDatasetError as error:
            if not tries:
                print(f"{error}; waiting for one", file=sys.stderr, flush=True)
            time.sleep(_REFRESH)


@contextmanager
def _until_stopped() -> Iterator[None]:
    """Ctrl-C is how one ends a look; the command line has it raised as an exit with this code."""
    try:
        yield
    except SystemExit as stopped:
        if stopped.code != 128 + signal.SIGINT:
            raise


def _status_table(status: Status) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in _STATUS_COLUMNS:
        table.add_column(heading, justify="left" if heading == "modality" else "right")
    for name, *figures in _status_rows(status):
        table.add_row(Text(name), *figures)
    return table


def _status_rows(status: Status) -> Iterator[list[str]]:
    for modality in status.modalities:
        yield [
            f"{modality.name} (new)" if modality.pending else modality.name,
            f"{modality.units:,}",
            f"{modality.samples:,}",
            "-" if modality.share is None else f"{_floor_percent(modality)}%",
            f"{modality.quarantined:,}" if modality.quarantined else "-",
            "-" if modality.rate is None else f"{modality.rate:,.1f}/s",
            "done" if modality.finished else "-" if modality.eta is None else duration(math.ceil(modality.eta)),
        ]


def _status_notes(status: Status) -> Iterable[str]:
    shards = f"{status.complete_shards:,} of {counted(status.shards, 'corpus shard')} complete"
    if status.total is None:
        yield f"{shards}; how many samples there are is known once one is"
    elif status.exact:
        yield f"{counted(status.total, 'sample')}, {shards}"
    else:
        yield f"about {counted(status.total, 'sample')} to make, going by the {shards}"
    pending = [modality.name for modality in status.modalities if modality.pending]
    if pending:
        yield "(new): takes the place of the one of its name once it is complete; readers get that one until then"
        yield f"(new): {ways_on(pending)}"
    for modality in status.modalities:
        for reason in modality.stale:
            yield f"{modality.name} is stale: {reason}; --replace {modality.name} makes it anew"
        if modality.behind:
            were = "sample was" if modality.behind == 1 else "samples were"
            yield (
                f"{modality.name}: {modality.behind:,} {were} made without what is there by now; a run of the recipe "
                f"makes that again, or `tokenloom quarantine {status.url} --retry`"
            )
    if status.lost:
        yield printable(status.lost)
    if status.superseded:
        size = readable_size(status.superseded)
        yield f"{size} superseded: `tokenloom gc {status.url}` deletes what nobody reads any more"
    if status.empty:
        yield empty_shards(status.empty)
    yield from broken_parts(status.broken)
    yield from map(printable, status.left_out)
    if status.notes:
        yield f"and {counted(status.notes, 'more note')} on what isn't taken: `tokenloom quarantine {status.url}`"
    for name in status.null:
        yield null_everywhere(name)
    if refused := how_many(status.refused, len(status.broken)):
        yield refused
    yield from _by_reason(status.reasons)
    if refused or any(modality.quarantined for modality in status.modalities):
        yield f"`tokenloom quarantine {status.url}` tells why samples failed"
    last = max((modality.last_written for modality in status.modalities), default=0.0)
    if not status.finished and time.time() - last > _QUIET:
        told = f"the last shard was written {duration(time.time() - last)} ago" if last else "no shard is written yet"
        yield f"{told}; where no run is at work, the same command goes on from there"


def _by_reason(groups: Sequence[Group]) -> Iterator[str]:
    """A line for each of the most frequent reasons, and one for the others. An image that can't be read fails in many
    modalities for the same."""
    alike: dict[tuple[str, str, str], list[Group]] = {}
    for one in groups:
        alike.setdefault((one.reason, one.error, one.key), []).append(one)
    found = sorted(alike.items(), key=lambda item: -sum(one.count for one in item[1]))
    for (reason, error, key), own in found[:_MOST_REASONS]:
        what = counted(sum(one.count for one in own), "sample" if own[0].modality == CORPUS else "label")
        named = "" if own[0].modality == CORPUS else f" of {few([one.modality for one in own])}"
        which = ", ".join(filter(None, (error, key)))
        yield printable(f"quarantined: {what}{named}: {reason}{f' ({which})' if which else ''}")
    if others := [one for _, own in found[_MOST_REASONS:] for one in own]:
        more = counted(len(found) - _MOST_REASONS, "other reason")
        yield f"quarantined: {sum(one.count for one in others):,} more, for {more}"


def broken_parts(reasons: Sequence[str]) -> Iterator[str]:
    """A line for each of the first parts of the corpus that can't be read, and one for the others."""
    for reason in sorted(reasons)[:_FEW_BROKEN]:
        yield f"incomplete: {printable(reason)}"
    if len(reasons) > _FEW_BROKEN:
        yield f"incomplete: {len(reasons) - _FEW_BROKEN:,} more parts of the corpus that can't be read"


def null_everywhere(name: str) -> str:
    return f"{told_null(name)}; if the corpus has it by another name, `tokenloom plan` shows which"


def empty_shards(names: Sequence[str]) -> str:
    verb = "holds" if len(names) == 1 else "hold"
    return f"{counted(len(names), 'corpus shard')} {verb} no sample: {printable(few(names))}"


def _floor_percent(modality: ModalityStatus) -> int:
    """100 only when nothing is left."""
    assert modality.share is not None
    return 100 if modality.finished else min(99, int(100 * modality.share))


def quarantine(url: str, modalities: Sequence[str], as_json: bool) -> None:
    """Prints which samples failed, and why."""
    failures = list_failures(Store(url), modalities or None)
    if as_json:
        _print_json_lines(asdict(failure) for failure in failures)
        return
    console = plain_console()
    found = cases(failures)
    shown = list(islice(found, _MOST_CASES))
    if not shown:
        console.print("nothing is in quarantine")
        return
    for why, alike in groupby(shown, key=_why):
        _print_whole(console, (case.key or "-" for case in alike))
        console.print(Padding(Text(printable(why)), (0, 0, 0, 4), expand=False))
    more = sum(1 for _ in found)
    keyed = [bool(case.key) for case in shown if case.refused]
    refused = how_many(keyed.count(True), keyed.count(False))
    console.print(", ".join(filter(None, (counted(len(shown), "case"), refused))))
    if more:
        console.print(f"and {more:,} more cases; --json lists all")


def _why(case: Case) -> str:
    kind = "" if case.error == MADE_WITHOUT else f" ({case.error})"
    return f"{_modalities(case)}: {case.reason}{kind}"


def _modalities(case: Case) -> str:
    if case.error == LEFT_OUT:
        return "no sample: left out"
    if case.refused:
        return "all: refused" if case.key else "part of a shard"
    return ", ".join(name if view is None else f"{name} (view {view})" for name, view in case.modalities)


def _print_json_lines(items: Iterable[object]) -> None:
    """A JSON array with an item a line, printed as it comes."""
    separator = "["
    for item in items:
        print(separator + json.dumps(item), end="")
        separator = ",\n "
    print("[]" if separator == "[" else "]")


def readable_size(count: int) -> str:
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min(len(units) - 1, max(0, (count.bit_length() - 1) // 10))
    return f"{count} bytes" if power == 0 else f"{count / 1024**power:.1f} {units[power]}"
