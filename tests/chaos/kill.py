"""Chaos: a run killed with SIGKILL at random moments, again and again, must end byte-identical to one left alone.

    python tests/chaos/kill.py [--quick] [--kills N] [--target driver|worker|raylet|all] [--storage local|s3|both]

A small recipe runs once in peace. Then, in other outputs, its driver, one of its stages' workers, or Ray's raylet is
killed at moments drawn from the time that the undisturbed run took, and after each death of the driver the same command
is run again. A worker's death must not end the run; the raylet's must end it soon, with a message. What is finished is
compared object by object with the undisturbed output, and verified; then all begins anew until every kill is done.

Prints what happens, and as its last line one JSON object. Linux only.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from places import BUCKET, s3_server, write_corpus
from processes import adopt_orphans
from runs import PHASES, Calm, Recipe, Run, check_identical, count_objects, run_in_peace, told

TARGETS = ("driver", "worker", "raylet")
_WORDS = {"worker": ("MapWorker", "StageWorker"), "raylet": ("raylet/raylet ",)}

_END_AFTER_RAYLET = 120.0
"""Seconds within which a driver must have ended after its raylet."""

_LEAST_SHARE = 0.3
"""Of the time for labelling, from which moments are drawn however little is left to do."""


@dataclass
class Torment:
    """Kills of one target on one storage."""

    recipe: Recipe
    calm: Calm
    target: str
    place: str
    kills: int
    random: random.Random
    done: Counter[str] = field(default_factory=Counter)
    restarts: int = 0
    finished: int = 0

    def run(self) -> None:
        """Kills until it is enough, and finishes. Raises ChaosError when an output differs or a run misbehaves."""
        while self.done.total() < self.kills:
            output = f"{self.place}/{self.target}-{self.finished}"
            while not self._one_run(output):
                self.restarts += 1
            check_identical(output, self.calm)
            self.finished += 1
            self._say(f"finished, identical and verified: {output}")

    def _one_run(self, output: str) -> bool:
        """Starts the command; whether it finished the dataset."""
        run = self.recipe.start(output)
        try:
            while self.done.total() < self.kills and self._strike(run):
                if self.target != "worker":
                    self._see_it_end(run)
                    return False
            run.finish()
        finally:
            run.abandon()
        return True

    def _strike(self, run: Run) -> bool:
        """Kills the target at a random moment; False when the run was over before. Once the dataset is complete, it
        doesn't count."""
        phase, seconds = self._moment(run)
        run.wait_for(lambda: run.phase >= phase)
        until = time.monotonic() + seconds
        run.wait_for(lambda: time.monotonic() >= until)
        while not run.is_over:
            victims = [None] if self.target == "driver" else run.find(_WORDS[self.target])
            if victims and run.kill(self.random.choice(victims)):
                if not run.is_done:
                    self.done[PHASES[run.phase]] += 1
                    self._say(f"killed the {self.target} after {run.seconds:.1f} s, {PHASES[run.phase]}")
                return True
            time.sleep(0.05)
        return False

    def _moment(self, run: Run) -> tuple[int, float]:
        """A phase and how many seconds of it to wait for: uniform over the undisturbed run's time, where the labelling
        counts by what is left of it."""
        left = max(_LEAST_SHARE, 1 - count_objects(run.output) / len(self.calm.objects))
        spans = [*self.calm.phases[:-1], self.calm.phases[-1] * left]
        if self.target == "worker":
            spans = [*spans[:-1], spans[-1] / 4]
        (phase,) = self.random.choices(range(len(spans)), spans)
        return phase, self.random.uniform(0, spans[phase])

    def _see_it_end(self, run: Run) -> None:
        began = time.monotonic()
        while not run.is_over and time.monotonic() - began < _END_AFTER_RAYLET:
            time.sleep(0.05)
        if not run.is_over:
            raise run.misbehaved(f"its driver is still there {_END_AFTER_RAYLET:.0f} s after the {self.target} died")
        if self.target == "raylet" and not run.is_done:
            # A driver that is just connecting is ended by Ray's native code, silently: nobody's work is lost then.
            explained = "tokenloom: " in run.text or run.phase == 0
            if run.driver.wait() <= 0 or not explained or "Traceback" in run.text:
                raise run.misbehaved(f"its raylet died, and the driver ended with {run.driver.returncode}")
            message = run.text.splitlines()[-1] if run.text else "no message"
            self._say(f"the driver ended after {time.monotonic() - began:.1f} s: {message}")
        if left := run.clear():
            self._say(f"{left} processes had to be killed after it")

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%T')} {self.target} {self.done.total()}/{self.kills}: {text}", flush=True)


def main() -> int:
    options = _options()
    adopt_orphans()
    result = {"seed": options.seed, "kills": {}, "phases": {}, "restarts": 0, "finished": 0}
    return told(result, lambda folder, stack: _torment_all(options, folder, stack, result))


def _torment_all(options: argparse.Namespace, folder: Path, stack: ExitStack, result: dict) -> None:
    storages = ["local", "s3"] if options.storage == "both" else [options.storage]
    corpus, temporary = folder / "corpus", folder / "ray"
    for sub in (temporary, folder / "logs"):
        sub.mkdir()
    write_corpus(corpus, 4, 24 if options.quick else 60)
    recipe = Recipe(folder / "logs", temporary, corpus, options.workers)
    for storage in storages:
        place = str(folder / "local")
        if storage == "s3":
            result["server"] = stack.enter_context(s3_server(folder / "s3"))
            place = f"s3://{BUCKET}"
        print(f"{time.strftime('%T')} {storage}: {result.get('server', place)}", flush=True)
        calm = run_in_peace(recipe, f"{place}/calm")
        spans = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in zip(PHASES, calm.phases, strict=True))
        print(f"{time.strftime('%T')} undisturbed: {len(calm.objects)} objects; {spans}", flush=True)
        for target in TARGETS if options.target == "all" else [options.target]:
            chance = random.Random(f"{options.seed} {storage} {target}")
            torment = Torment(recipe, calm, target, place, options.kills, chance)
            try:
                torment.run()
            finally:
                result["kills"][f"{target} {storage}"] = torment.done.total()
                result["phases"] = dict(Counter(result["phases"]) + torment.done)
                result["restarts"] += torment.restarts
                result["finished"] += torment.finished


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 kills per target, on a local disk")
    parser.add_argument("--kills", type=int, help="kills per target and storage (20)")
    parser.add_argument("--target", choices=[*TARGETS, "all"], default="all")
    parser.add_argument("--storage", choices=["local", "s3", "both"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="actors of the stage")
    options = parser.parse_args()
    options.kills = options.kills or (2 if options.quick else 20)
    options.storage = options.storage or ("local" if options.quick else "both")
    return options


if __name__ == "__main__":
    sys.exit(main())
