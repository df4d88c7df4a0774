"""Chaos: infra/slurm/tokenloom.sbatch on a real Slurm of three hosts. However a job ends, the bytes are the same.

    python tests/chaos/slurm.py [--only CASE]...

A job takes two of the hosts, and once three labels are there it is held until it has been struck: told to stop before
its time limit, cancelled, queued again, or bereft of its first or second node. Slurm runs it again, or it is submitted
again, and what it leaves then is compared, object by object, with a run in peace. Once a host is free no process of a
job may be left on it.

Prints what happens, and as its last line one JSON object. Linux only; needs root, iproute2, and Slurm.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from hosts import go_inside
from in_process import weave
from places import ROOT, write_corpus
from processes import adopt_orphans, clear, descendants
from runs import ChaosError, check_dataset, check_same, seen_objects, told
from schedules import content
from slow_labelers import HELD_AT, HOLD, shards
from slurm_hosts import Job, Slurm, why_not
from tokenloom.pipeline.plan.recipe import parse_recipe

_SCRIPT = ROOT / "infra/slurm/tokenloom.sbatch"
_LONGEST = 300.0
"""Seconds for anything that a job does."""


@dataclass(frozen=True)
class Case:
    """recipe: of `schedules`. options: for sbatch. strike: what befalls the job once it is held; None: it isn't. runs:
    how often Slurm runs it, with 1 and a strike it is submitted once more."""

    recipe: str
    options: str
    strike: Callable[[Job], None] | None
    runs: int = 2


def _end_node(index: int) -> Callable[[Job], None]:
    return lambda job: job.slurm.hosts[job.nodes()[index]].end()


CASES = {
    "in peace": Case("two stages", "--nodes=3 --gres=gpu:1", None, runs=1),
    "the limit": Case("one stage", "--time=4", lambda job: None),
    "scancel": Case("two stages", "--gres=gpu:1", lambda job: job.command("scancel"), runs=1),
    "requeue": Case("one stage", "", lambda job: job.command("scontrol", "requeue")),
    "second node": Case("one stage", "", _end_node(1)),
    "first node": Case("two stages", "--gres=gpu:1", _end_node(0)),
}


@dataclass
class Ground:
    """A Slurm, and what all cases have in common. hold: a file, as `slow_labelers` has it."""

    slurm: Slurm
    folder: Path

    @property
    def hold(self) -> Path:
        return self.folder / "hold"

    def recipe(self, case: Case, output: Path) -> Path:
        path = self.folder / f"{output.name}.yaml"
        path.write_text(yaml.safe_dump(content(case.recipe, str(self.folder), str(output), None), sort_keys=False))
        return path

    def expected(self, recipe: str) -> dict[str, str]:
        """What a run in this process and without Ray leaves."""
        output = self.folder / f"peace-{recipe.replace(' ', '-')}"
        if not output.exists():
            weave(parse_recipe(content(recipe, str(self.folder), str(output), None)))
            check_dataset(str(output))
        return seen_objects(str(output))

    def submit(self, case: Case, recipe: Path) -> Job:
        environment = {HOLD: str(self.hold), "TOKENLOOM_RAY_ARGS": "--object-store-memory 80000000"}
        return self.slurm.submit(_SCRIPT, recipe.name, options=case.options, **environment)

    def play(self, name: str, case: Case) -> None:
        output = self.folder / name.replace(" ", "-")
        recipe, expected = self.recipe(case, output), self.expected(case.recipe)
        job = self.submit(case, recipe)
        if case.strike:
            self._strike(case.strike, job, output)
            if case.runs == 1:
                self.slurm.wait(lambda: job.is_over, _LONGEST, f"job {job.number} to be over")
                self._is_free()
                job = self.submit(case, recipe)
        self.slurm.wait(lambda: job.is_over, _LONGEST, f"job {job.number} to be over")
        if (state := job["JobState"]) != "COMPLETED" or job["Restarts"] != str(case.runs - 1):
            raise ChaosError(f"{name}: {state}, restarts {job['Restarts']}; its log ends with\n{job.log[-3000:]}")
        check_same(str(output), expected, seen_objects(str(output)))
        check_dataset(str(output))
        self._is_free()

    def _strike(self, strike: Callable[[Job], None], job: Job, output: Path) -> None:
        """Returns once the job runs no more."""
        self.hold.write_text(str(output / "colour"))
        try:
            reached = lambda: shards(output / "colour") >= HELD_AT or job.is_over  # noqa: E731
            self.slurm.wait(reached, _LONGEST, f"job {job.number} to have some labels; its log:\n{job.log}")
            strike(job)
            self.slurm.wait(lambda: job["JobState"] != "RUNNING", _LONGEST, f"job {job.number} to run no more")
        finally:
            self.hold.unlink()

    def _is_free(self) -> None:
        """All hosts are there again, and nothing runs on them but Slurm's daemon."""
        self.slurm.mend()
        if left := self.slurm.processes():
            raise ChaosError(f"a job left processes: {left}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=CASES, metavar="CASE", help=", ".join(CASES))
    names = parser.parse_args().only or list(CASES)
    if why := why_not() or go_inside():
        sys.exit(f"slurm.py: {why}")
    adopt_orphans()
    result: dict[str, Any] = {"cases": 0, "jobs": 0}
    return told(result, lambda folder, stack: _play(names, folder, stack, result))


def _play(names: list[str], folder: Path, stack: ExitStack, result: dict[str, Any]) -> None:
    stack.callback(lambda: clear(descendants(), 0.0))
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENLOOM_DEVICE": "cpu", "COLUMNS": "200"}
    os.environ["RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE"] = "1"
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    write_corpus(folder / "photographs", 2, 8)
    shutil.copy(Path(__file__).with_name("slow_labelers.py"), folder)
    slurm = Slurm(folder)
    stack.callback(slurm.end)
    slurm.start()
    ground = Ground(slurm, folder)
    for name in names:
        began = time.monotonic()
        ground.play(name, CASES[name])
        result["cases"] += 1
        result["jobs"] += CASES[name].runs if CASES[name].strike is None else 2
        print(f"{time.strftime('%T')} {name}: identical, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
