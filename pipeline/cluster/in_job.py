"""What is run where a command was sent to a cluster: this very file, sent along, for the cluster may have no tokenloom
or another one.

Beside it lie the recipe, its plugins, and JOB: the versions that the cluster has to have, and the words that come after
`tokenloom`; not in the job's command, which Ray's dashboard shows to everybody.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from runpy import run_module
from threading import Thread

JOB = "tokenloom-job.json"
ATTACHED = "--attached"
"""Its one option: to stop when its standard input ends, which does so with the process that started it."""


def run_job(folder: Path) -> None:
    # Nothing that was sent along takes the place of a module: plugins are looked for in the working directory, last.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != folder]
    job = json.loads((folder / JOB).read_text())
    for name, wanted in job["needs"].items():
        if problem := _differs(name, wanted):
            print(
                f"tokenloom: {problem}, and {wanted} where this was started: install {name}=={wanted} on every "
                f"machine of the cluster, or start it on a machine with the cluster's version",
                flush=True,
            )
            sys.exit(2)
    sys.argv = ["tokenloom", *job["words"]]
    run_module("tokenloom.pipeline.cli", run_name="__main__")


def _differs(name: str, wanted: str) -> str:
    """What the cluster has instead of a distribution's version; "" where it has it."""
    try:
        found = version(name)
    except PackageNotFoundError:
        return f"{name} isn't installed for {sys.executable}, by which the cluster runs jobs"
    return f"the cluster has {name} {found}" if found != wanted else ""


def _stop_with_input() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    if ATTACHED in sys.argv:
        Thread(target=_stop_with_input, daemon=True).start()
    run_job(Path(__file__).resolve().parent)
