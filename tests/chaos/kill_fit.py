"""Chaos: a fit killed with SIGKILL at random moments, again and again, must end byte-identical to one left alone.

    python tests/chaos/kill_fit.py [--quick] [--kills N] [--of tokenizer|model] [--workers N]
                                   [--target driver|worker|both|all] [--url URL]

A small VQ tokenizer, or a small model, is trained once in peace. Then, elsewhere, the driver, one of the training
processes, or both it and all of them are killed at moments drawn from the time that the undisturbed fit took. After
each death of the driver the same fit is started again; a worker's death must not end it. The files are compared byte by
byte, metrics step by step; then all begins anew until every kill is done. Several workers must have seen the same data
in the same order: how many tokens each step had; whether files are the same is told. Outputs lie in a temporary folder,
or below --url, as s3://BUCKET/PREFIX.

Prints what happens, and as its last line one JSON object. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from processes import Process, adopt_orphans, clear, descendants
from runs import ChaosError, told
from small_fits import PREFIX, put_aside
from tokenloom.pipeline.storage.store import Store
from training_recipes import two_datasets

TARGETS = ("driver", "worker", "both")
STEPS = 300
_WORKER = "RayTrainWorker"
_ORDER = "order"
_LONGEST = 900.0
_MOST_DEATHS = 8
"""Of the worker in one fit: `run_fit` gives up a fit whose processes die again and again."""

_TOKENIZER = """
import sys
sys.path.insert(0, sys.argv[1])
from small_fits import fit_job
from tokenloom.pipeline.storage.store import Store
from tokenloom.pipeline.fitting.listener import FitListener
from tokenloom.pipeline.fitting.ray_train import run_fit

class Printing(FitListener):
    def say(self, what):
        print(what, flush=True)

store = Store(sys.argv[2])
job = fit_job(store, steps=int(sys.argv[3]), checkpoint_every=20, report_every=5, workers=int(sys.argv[4]))
for name, data in run_fit(job, Printing()).items():
    store.replace(f"tokenizer/{name}", data)
"""

_MODEL = """
import sys
sys.path.insert(0, sys.argv[1])
from small_trainings import made_at, run_very_small

recipe = made_at(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
run_very_small(recipe, lambda news: isinstance(news, str) and print(news, flush=True))
"""


@dataclass(frozen=True)
class Subject:
    """What is trained. driver: a program, given the folder of helpers, a URL and the numbers of steps and workers.
    prepare: what it needs below the URL; files: below which folder of it what comes out lies; lines: of its metrics."""

    driver: str
    prepare: Callable[[str], object]
    files: str
    lines: Callable[[Store], Iterable[dict[str, Any]]]


def tokenizer_lines(store: Store) -> Iterable[dict[str, Any]]:
    return map(json.loads, store.read(f"{PREFIX}/metrics.jsonl").splitlines())


def model_lines(store: Store) -> Iterable[dict[str, Any]]:
    for entry in store.list("run/metrics"):
        yield from map(json.loads, store.read(f"run/metrics/{entry.name}").splitlines())


SUBJECTS = {
    "tokenizer": Subject(_TOKENIZER, lambda url: put_aside(Store(url)), "tokenizer", tokenizer_lines),
    "model": Subject(_MODEL, lambda url: two_datasets(url), "run/model", model_lines),
}


class Fit:
    """A driver at work."""

    def __init__(self, subject: Subject, workers: int, url: str, folder: Path) -> None:
        self.log = folder / f"fit-{time.monotonic_ns()}.log"
        self.began = time.monotonic()
        self._before = frozenset(descendants())
        environment = {
            **os.environ,
            "RAY_TMPDIR": str(folder / "ray"),
            "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("RAY_ADDRESS", None)
        helpers = Path(__file__).resolve().parents[1] / "helpers"
        environment["PYTHONPATH"] = str(helpers)  # for the workers
        with open(self.log, "wb") as log:
            command = [sys.executable, "-c", subject.driver, str(helpers), url, str(STEPS), str(workers)]
            self.driver = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def is_over(self) -> bool:
        if self.seconds > _LONGEST:
            self.abandon()
            raise self.misbehaved(f"it still wasn't over after {_LONGEST:.0f} s")
        return self.driver.poll() is not None

    @property
    def workers(self) -> list[Process]:
        return [one for one in self._processes() if _WORKER in one.command]

    def finish(self) -> None:
        while not self.is_over:
            time.sleep(0.05)
        clear(self._processes(), 3.0)
        if self.driver.returncode:
            raise self.misbehaved(f"it ended with exit code {self.driver.returncode}")

    def abandon(self) -> None:
        """Kills whatever there is of it."""
        self.driver.kill()
        self.driver.wait()
        clear(self._processes(), 3.0)

    def misbehaved(self, how: str) -> ChaosError:
        return ChaosError(f"{how}; its log, {self.log}, ends with\n{self.text[-2000:]}")

    def _processes(self) -> list[Process]:
        return [process for process in descendants() if process not in self._before]


@dataclass(frozen=True)
class Calm:
    """The fit that nobody disturbed. until_training: seconds until its first step. files: by path."""

    seconds: float
    until_training: float
    files: dict[str, bytes]


@dataclass
class Torment:
    """Kills of one target."""

    subject: Subject
    workers: int
    place: str
    folder: Path
    calm: Calm
    target: str
    kills: int
    random: random.Random
    done: int = 0
    restarts: int = 0
    finished: int = 0
    other: int = 0
    phases: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        """Kills until it is enough, and finishes. Raises ChaosError when anything differs."""
        while self.done < self.kills:
            url = f"{self.place}/{self.target}-{self.finished}"
            self.subject.prepare(url)
            while not self._one_fit(url):
                self.restarts += 1
            self.other += check(self.subject, self.workers, url, self.calm)
            self.finished += 1
            self._say("finished, with the same outcome")

    def _one_fit(self, url: str) -> bool:
        """Starts the fit and kills; whether it came to its end."""
        fit, deaths = Fit(self.subject, self.workers, url, self.folder), 0
        try:
            while self.done < self.kills and deaths < _MOST_DEATHS and self._strike(fit):
                deaths += 1
                if self.target != "worker":
                    return False
            fit.finish()
        finally:
            fit.abandon()
        return True

    def _strike(self, fit: Fit) -> bool:
        """Kills the target at a random moment of what the undisturbed fit took; False when the fit was over before."""
        training = self.calm.seconds - self.calm.until_training
        if self.random.random() < 0.7:  # else also while it is starting
            while "training for" not in fit.text and "going on" not in fit.text:
                if fit.is_over:
                    return False
                time.sleep(0.02)
            wait = self.random.uniform(0, 0.9 * training)
        else:
            wait = self.random.uniform(0, self.calm.until_training)
        until = time.monotonic() + wait
        while time.monotonic() < until and not fit.is_over:
            time.sleep(0.02)
        while not fit.is_over:
            if self.target == "worker":
                workers = fit.workers
                if not (workers and self.random.choice(workers).kill()):
                    time.sleep(0.05)
                    continue
            else:
                fit.driver.kill()
                for one in fit.workers if self.target == "both" else ():
                    one.kill()
            lines = fit.text.splitlines()
            phase = "training" if any(line.startswith(("training", "going on")) for line in lines) else "starting"
            self.done += 1
            self.phases[phase] += 1
            self._say(f"killed the {self.target} after {fit.seconds:.1f} s, {phase}")
            return True
        return False

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%T')} {self.target} {self.done}/{self.kills}: {text}", flush=True)


def fit_in_peace(subject: Subject, workers: int, place: str, folder: Path) -> Calm:
    url = f"{place}/calm"
    subject.prepare(url)
    fit = Fit(subject, workers, url, folder)
    while "training for" not in fit.text and not fit.is_over:
        time.sleep(0.02)
    until_training = fit.seconds
    fit.finish()
    return Calm(fit.seconds, until_training, outcome(subject, url))


def outcome(subject: Subject, url: str) -> dict[str, bytes]:
    """The files of what was trained; which steps the metrics have, with their data and with their losses."""
    store = Store(url)
    files = {entry.name: store.read(f"{subject.files}/{entry.name}") for entry in store.list(subject.files)}
    lines = list(subject.lines(store))
    for name, key in ((_ORDER, "used"), ("losses", "loss")):
        files[name] = json.dumps([[line["step"], line.get(key)] for line in lines]).encode()
    return files


def check(subject: Subject, workers: int, url: str, calm: Calm) -> bool:
    """Whether the outcome of several workers has other bytes than the undisturbed fit's. Raises ChaosError where it has
    seen other data, and where that of a single one differs at all."""
    found = outcome(subject, url)
    differ = sorted(name for name in found.keys() | calm.files.keys() if found.get(name) != calm.files.get(name))
    if differ and (workers == 1 or _ORDER in differ):
        raise ChaosError(f"{url} is not what the undisturbed fit made: {', '.join(differ)} differ")
    return bool(differ)


def main() -> int:
    options = _options()
    adopt_orphans()
    result = {
        "seed": options.seed,
        "of": options.of,
        "workers": options.workers,
        "place": options.url or "local",
        "kills": {},
        "phases": {},
        "restarts": 0,
        "other_bytes": 0,
    }
    return told(result, lambda folder, _: _torment_all(options, folder, result))


def _torment_all(options: argparse.Namespace, folder: Path, result: dict[str, Any]) -> None:
    (folder / "ray").mkdir()
    place = f"{options.url.rstrip('/')}/{time.time_ns()}" if options.url else str(folder / "fits")
    subject = SUBJECTS[options.of]
    calm = fit_in_peace(subject, options.workers, place, folder)
    print(f"{time.strftime('%T')} undisturbed: {calm.until_training:.1f} + "
          f"{calm.seconds - calm.until_training:.1f} s", flush=True)  # fmt: skip
    for target in TARGETS if options.target == "all" else [options.target]:
        dice = random.Random(f"{options.seed} {target}")
        torment = Torment(subject, options.workers, place, folder, calm, target, options.kills, dice)
        try:
            torment.run()
        finally:
            result["kills"][target] = torment.done
            result["phases"] = dict(Counter(result["phases"]) + torment.phases)
            result["restarts"] += torment.restarts
            result["other_bytes"] += torment.other


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 kills per target")
    parser.add_argument("--kills", type=int, help="kills per target (10)")
    parser.add_argument("--of", choices=[*SUBJECTS], default="tokenizer", help="what is trained")
    parser.add_argument("--workers", type=int, default=1, help="training processes")
    parser.add_argument("--target", choices=[*TARGETS, "all"], default="all")
    parser.add_argument("--url", help="where the outputs go, as s3://BUCKET/PREFIX; by default a temporary folder")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.kills = options.kills or (2 if options.quick else 10)
    return options


if __name__ == "__main__":
    sys.exit(main())
