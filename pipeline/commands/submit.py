"""What the command `submit` does and prints."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from ..cluster.jobs import connect, dashboard_url, follow, send
from ..cluster.package import LostError
from ..plan.recipe import recipe_file
from .package import LOST, package_of, run_options


def submit(
    name: str,
    address: str,
    overrides: Sequence[str],
    corpus: Sequence[str],
    output: str | None,
    replacing: Sequence[str],
    take_changes: bool,
    limit: int | None,
    report: str | None,
) -> int:
    """Has `tokenloom run` do a recipe on the cluster: as `have_done`. report: a path of the machine that runs the
    job, or a URL."""
    more = run_options(replacing, take_changes, limit, report)
    return have_done("run", name, address, overrides, corpus, output, more)


def have_done(
    command: str,
    name: str,
    address: str,
    overrides: Sequence[str],
    corpus: Sequence[str],
    output: str | None,
    more: Sequence[str] = (),
) -> int:
    """Sends a recipe and its plugins, has the command done to it on the cluster, and follows the job; its exit code,
    or that of the signal that ended this. more: options of the command."""
    package = package_of(command, name, overrides, corpus, output, more)
    client = connect(address)
    job = send(client, package, recipe_file(name).stem)
    print(f"job {job}", flush=True)
    try:
        return follow(client, job, _write, _say)
    except SystemExit as stopped:  # Ctrl-C or SIGTERM
        print(f"\ndetached: the job goes on. {_how_to(address, job)}", file=sys.stderr)
        return int(str(stopped.code))
    except LostError as error:
        _say(str(error))
        print(f"what becomes of the job isn't known here. {_how_to(address, job)}", file=sys.stderr)
        return LOST


def _say(text: str) -> None:
    print(f"tokenloom: {text}", file=sys.stderr, flush=True)


def _write(text: str) -> None:
    print(text, end="", flush=True)


def _how_to(address: str, job: str) -> str:
    at = f"--address {shlex.quote(dashboard_url(address))} {job}"
    return f"To come back, or to stop it:\n  ray job logs --follow {at}\n  ray job stop {at}"
