"""What the command `doctor` does and prints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from ..cluster.session import check_address, is_dashboard, stop_ray
from ..doctor.doctor import diagnose
from ..doctor.finding import Level, Row
from ..plan.origins import told_origins
from ..plan.recipe import load_recipe
from .attached import attached, ray_client
from .console import counted, plain_console
from .package import run_options
from .printable import printable
from .submit import have_done

_WORDS = {Level.OK: "ok", Level.WARNING: "warning", Level.FAILED: "failed"}


def doctor(
    name: str,
    address: str | None,
    overrides: Sequence[str],
    corpus: Sequence[str],
    output: str | None,
    replacing: Sequence[str],
    take_changes: bool,
) -> int:
    """Prints what is so on this machine, or on every node of the cluster: 1 where something failed, else 0. What has a
    dashboard's address is done there by a job, and through Ray Client by a process there, whose exit code this is."""
    more = run_options(replacing, take_changes)
    if address and is_dashboard(address):
        return have_done("doctor", name, address, overrides, corpus, output, more)
    if address:
        check_address(address, "--address")
        os.environ["RAY_ADDRESS"] = address
    if client := ray_client():
        return attached(client, "doctor", name, overrides, corpus, output, more)
    recipe = load_recipe(name, overrides, corpus, output)
    console = plain_console()
    for line in told_origins(recipe, Path.cwd()):
        console.print(printable(line), soft_wrap=True)
    on_cluster = os.environ.get("RAY_ADDRESS") not in (None, "", "local")
    say = lambda text: console.print(f"{text} ...", soft_wrap=True)  # noqa: E731
    rows = diagnose(recipe, on_cluster, say, replacing, take_changes)
    stop_ray()
    console.print()
    console.print(_table(rows, on_cluster))
    console.print(f"\n{_summary(rows)}", soft_wrap=True)
    return int(_count(rows, Level.FAILED) > 0)


def _table(rows: Sequence[Row], on_cluster: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("check", "", *(["where"] if on_cluster else [])):
        table.add_column(column, overflow="fold")
    table.add_column("what is so, and the way out", overflow="fold")
    for row in rows:
        found = row.finding
        said = found.said + (f"\n-> {found.way_out}" if found.way_out else "")
        where = [printable(row.where)] if on_cluster else []
        table.add_row(found.check, _WORDS[found.level], *where, "\n".join(map(printable, said.split("\n"))))
    return table


def _summary(rows: Sequence[Row]) -> str:
    bad, doubtful = _count(rows, Level.FAILED), _count(rows, Level.WARNING)
    told = [counted(count, noun) for count, noun in ((bad, "failure"), (doubtful, "warning")) if count]
    return " and ".join(told) or "all is well"


def _count(rows: Sequence[Row], level: Level) -> int:
    return sum(row.finding.level == level for row in rows)
