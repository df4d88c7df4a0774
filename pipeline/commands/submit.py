"""What the command `submit` does and prints."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from ..cluster.jobs import at_work_on, connect, dashboard_url, follow, new_job, send
from ..cluster.package import LostError
from ..plan.recipe import load_recipe, recipe_file
from ..storage.store import redact
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
    client, recipe = connect(address), recipe_file(name).stem
    makes = redact(load_recipe(name, overrides, corpus, output).output) if command == "run" else ""
    for other in at_work_on(client, makes) if makes else ():
        _say(f"{other} is at work on the same output: what both make is made twice, and kept once")
    job, taken = new_job(recipe), False
    print(f"job {job}", flush=True)  # before it is sent: what is stopped meanwhile may run all the same
    try:
        send(client, package, job, recipe, makes)
        taken = True
        return follow(client, job, _write, _say)
    except SystemExit as stopped:  # Ctrl-C or SIGTERM
        what = "detached: the job goes on" if taken else "stopped while it was sent: the cluster may have taken the job"
        print(f"\n{what}. {_how_to(address, job)}", file=sys.stderr)
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
