"""Runs of one recipe as processes of their own: started, watched, struck down, and what they leave compared."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Protocol

import yaml
from processes import Process, clear, descendants
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.storage.store import Store

PHASES = ("starting", "labelling a sample", "fitting", "labelling")
"""What a run does, one after another; it prints what it begins, a resumed one leaves out what is done."""

_SAYS = ("", "labelling a sample", "fitting", "labelling ...")

_LONGEST = 900.0
"""Seconds after which a run counts as hanging."""

_number = count()


class ChaosError(AssertionError):
    """A run that didn't behave; the message says how, and where its output is."""


class Driver(Protocol):
    """A process, as subprocess.Popen has it."""

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def kill(self) -> None: ...


@dataclass
class Run:
    """A driver at work, with everything that it started."""

    output: str
    log: Path
    driver: Driver
    before: frozenset[Process]
    longest: float = _LONGEST
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def text(self) -> str:
        """What it has said; nothing before it has begun."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def phase(self) -> int:
        """The index in PHASES of what it does."""
        lines = self.text.splitlines()
        return max(index for index, words in enumerate(_SAYS) if any(line.startswith(words) for line in ["", *lines]))

    @property
    def is_done(self) -> bool:
        """Whether it has said that the dataset is complete, though it may still be about to end."""
        return any(words in self.text for words in (" samples in ", "nothing to do"))

    @property
    def is_over(self) -> bool:
        return self.driver.poll() is not None

    def processes(self) -> list[Process]:
        return [process for process in descendants() if process not in self.before]

    def wait_for(self, what: Callable[[], Any]) -> Any:
        """Waits until `what()` is true, and gives that; None when the run was over before. ChaosError if it hangs."""
        while True:
            over = self.is_over
            if found := what():
                return found
            if over:
                return None
            if self.seconds > self.longest:
                self.ask_where()
                self.abandon()
                raise self.misbehaved(f"it still wasn't over after {self.longest:.0f} s")
            time.sleep(0.05)

    def find(self, words: tuple[str, ...]) -> list[Process]:
        """Its processes whose command line holds one of the words."""
        return [process for process in self.processes() if any(word in process.command for word in words)]

    def finish(self) -> None:
        """Waits until it is done. ChaosError when it fails."""
        self.wait_for(lambda: False)
        code = self.driver.wait()
        self.clear()
        if code:
            raise self.misbehaved(f"it ended with exit code {code}")

    def kill(self, victim: Process | None) -> bool:
        """Kills one of its processes, None: the driver; whether that one was there."""
        if victim is not None:
            return victim.kill()
        self.driver.kill()
        return True

    def clear(self, patience: float = 3.0) -> int:
        """Waits for what is left of its Ray to end, and kills the rest; how many processes that were."""
        return clear(self.processes(), patience)

    def ask_where(self) -> None:
        """Has its log say where it hangs, where it can be asked."""

    def abandon(self) -> None:
        """Kills whatever there is of it."""
        self.driver.kill()
        self.driver.wait()
        self.clear(0.0)

    def misbehaved(self, how: str) -> ChaosError:
        return ChaosError(f"{self.output}: {how}; its log, {self.log}, ends with\n{self.text[-2000:]}")


def start(words: Sequence[str], output: str, log: Path, temporary: Path) -> Run:
    """A command of tokenloom with a Ray of its own. temporary: for Ray, a short path."""
    environment = {
        **os.environ,
        "RAY_TMPDIR": str(temporary),
        "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    environment.pop("RAY_ADDRESS", None)
    before = frozenset(descendants())
    with open(log, "wb") as file:
        command = [sys.executable, "-m", "tokenloom.pipeline.cli", *words]
        driver = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    return Run(output, log, driver, before)


@dataclass(frozen=True)
class Recipe:
    """The recipe of all runs. folder: for the runs' logs and recipes. temporary: for Ray, a short path."""

    folder: Path
    temporary: Path
    corpus: Path
    workers: int

    def start(self, output: str) -> Run:
        name = f"run-{next(_number):04d}"
        path, log = self.folder / f"{name}.yaml", self.folder / f"{name}.log"
        path.write_text(yaml.safe_dump(self._content(output)))
        return start(["run", str(path)], output, log, self.temporary)

    def _content(self, output: str) -> dict[str, Any]:
        codebook = {"name": "patch_codebook", "params": {"size": 64}}
        return {
            "corpus": str(self.corpus),
            "output": output,
            "modalities": {
                "rgb": {"tokenizer": codebook},
                "caption": {"keep": "both"},
                "canny_edge": {"keep": "labels"},
                "color_palette": {"keep": "both"},
                "metadata": {"keep": "both"},
            },
            "views": {"size": 112},
            "units": {"samples": 4},
            "fit": {"units": 8},
            "resources": {"workers": self.workers},
        }


@dataclass(frozen=True)
class Calm:
    """The run that nobody disturbed. phases: how many seconds each took. objects: SHA-256 by path."""

    phases: tuple[float, ...]
    objects: dict[str, str]

    @property
    def seconds(self) -> float:
        return sum(self.phases)


def run_in_peace(recipe: Recipe, output: str) -> Calm:
    """Runs the recipe once and checks the dataset."""
    run = recipe.start(output)
    starts = [0.0]
    for phase in range(1, len(PHASES)):
        run.wait_for(lambda phase=phase: run.phase >= phase)
        starts.append(run.seconds)
    run.wait_for(lambda: False)
    starts.append(run.seconds)
    run.finish()
    check_dataset(output)
    return Calm(tuple(stop - start for start, stop in pairwise(starts)), objects(output))


def count_objects(output: str) -> int:
    return len(Store(output).list())


def objects(output: str) -> dict[str, str]:
    """SHA-256 of every object below the output by path: of a folder every file, hidden and unfinished ones too."""
    store = Store(output)
    if store.is_local:
        files = [path for path in Path(output).rglob("*") if not path.is_dir()]
        return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return seen_objects(output)


def check_dataset(output: str) -> None:
    """Raises ChaosError when `verify` finds anything."""
    faults = verify(output, deep=True).faults
    if faults:
        raise ChaosError(f"{output}: verify finds {len(faults)} faults, the first: {faults[0]}")


def check_identical(output: str, calm: Calm) -> None:
    """Raises ChaosError when the output differs in any object from the uninterrupted run's."""
    check_same(output, calm.objects)
    check_dataset(output)


def seen_objects(output: str) -> dict[str, str]:
    """SHA-256 of every object by path, but for what a writer who died on another host may have left unfinished."""
    store = Store(output)
    return {entry.name: hashlib.sha256(store.read(entry.name)).hexdigest() for entry in store.list()}


def check_same(output: str, expected: Mapping[str, str], found: Mapping[str, str] | None = None) -> None:
    """Raises ChaosError when what is found there, by `objects` unless it is given, isn't that."""
    found = objects(output) if found is None else found
    lost, added = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    changed = sorted(path for path in expected.keys() & found.keys() if expected[path] != found[path])
    if lost or added or changed:
        shown = [
            f"{len(paths)} {what}, as {paths[0]}"
            for what, paths in (("lost", lost), ("added", added), ("changed", changed))
            if paths
        ]
        raise ChaosError(f"{output} is not what the uninterrupted run made: {'; '.join(shown)}")


def told(result: dict[str, Any], torment: Callable[[Path, ExitStack], None]) -> int:
    """The exit code of a script that torments runs in a folder of its own, which stays where they fail. Prints, last,
    the result as JSON, with whether all was identical. torment: adds to the result, and raises ChaosError."""
    began, failure = time.monotonic(), ""
    folder = Path(tempfile.mkdtemp(prefix="tl-chaos-"))  # short: sockets lie in it, whose paths are bounded
    with ExitStack() as stack:
        try:
            torment(folder, stack)
        except ChaosError as error:
            failure = str(error)
            print(failure, flush=True)
    if not failure:
        shutil.rmtree(folder)
    result |= {"identical": not failure, "seconds": round(time.monotonic() - began), "ratio": 0.0 if failure else 1.0}
    print(json.dumps(result), flush=True)
    return 1 if failure else 0
