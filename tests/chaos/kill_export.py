"""Chaos: an export killed with SIGKILL at random moments, again and again, must end byte-identical to one left alone.

    python tests/chaos/kill_export.py [--quick] [--kills N] [--to FORMAT|all] [--target driver|worker|all]
                                      [--storage local|s3]

A dataset of 1,100 small images in 8 views is made once, and exported once in peace to each format. Then, in other
outputs, the driver or a worker of `tokenloom export` is killed: one time in five at any moment, else while pieces are
written. After each death of the driver the same command is run again; a worker's death must not end it. What is
finished is compared object by object with the undisturbed export; then all begins anew until every kill is done.

Prints what happens, and as its last line one JSON object. Linux only.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from in_process import weave
from PIL import Image
from places import BUCKET, s3_server
from processes import adopt_orphans
from runs import Run, check_same, count_objects, objects, start, told
from tokenloom.pipeline.plan.recipe import parse_recipe

FORMATS = ("webdataset", "hf", "lm", "ml-4m")
TARGETS = ("driver", "worker")
SAMPLES, VIEWS = 1_100, 8
_WORDS = ("ray::MapBatches",)
_AT_ANY_MOMENT = 0.2
"""The share of kills that may fall before the first piece is begun."""

_numbers = count()


@dataclass(frozen=True)
class Export:
    """The command of all runs. place: below which the outputs lie."""

    folder: Path
    dataset: str
    place: str
    format: str

    def start(self, output: str) -> Run:
        log = self.folder / f"logs/export-{next(_numbers):04d}.log"
        return start(["export", self.dataset, output, "--to", self.format], output, log, self.folder / "ray")


@dataclass
class Torment:
    """Kills of one target. seconds: that the undisturbed export took, and how long it wrote pieces."""

    export: Export
    expected: dict[str, str]
    seconds: tuple[float, float]
    target: str
    kills: int
    random: random.Random
    done: int = 0
    restarts: int = 0
    finished: int = 0

    def run(self) -> None:
        """Kills until it is enough, and finishes. Raises ChaosError when an output differs or a run misbehaves."""
        while self.done < self.kills:
            output = f"{self.export.place}/{self.export.format}-{self.target}-{self.finished}"
            while not self._one_run(output):
                self.restarts += 1
            check_same(output, self.expected)
            self.finished += 1
            self._say(f"finished and identical: {output}")

    def _one_run(self, output: str) -> bool:
        """Starts the command; whether it finished the export."""
        there = count_objects(output)
        run = self.export.start(output)
        try:
            if self.done < self.kills and self._strike(run, there) and self.target == "driver":
                return False
            run.finish()
        finally:
            run.abandon()
        return True

    def _strike(self, run: Run, there: int) -> bool:
        """Kills the target at a random moment; False when the run was over before."""
        whole, writing = self.seconds
        seconds = self.random.uniform(0, whole)
        if self.random.random() >= _AT_ANY_MOMENT:
            run.wait_for(lambda: count_objects(run.output) > max(there, 1))  # export.json is written before any piece
            seconds = self.random.uniform(0, writing if self.target == "driver" else writing / 2)
        until = time.monotonic() + seconds
        run.wait_for(lambda: time.monotonic() >= until)
        while not run.is_over and f" -> {run.output}" not in run.text:
            victims = [None] if self.target == "driver" else run.find(_WORDS)
            if victims and run.kill(self.random.choice(victims)):
                self.done += 1
                self._say(f"killed the {self.target} after {run.seconds:.1f} s, {count_objects(run.output)} objects")
                return True
            time.sleep(0.02)
        return False

    def _say(self, text: str) -> None:
        place = f"{self.export.format} {self.target} {self.done}/{self.kills}"
        print(f"{time.strftime('%T')} {place}: {text}", flush=True)


def export_in_peace(export: Export) -> tuple[dict[str, str], tuple[float, float]]:
    """The objects of an undisturbed export, and its `Torment.seconds`."""
    output = f"{export.place}/{export.format}-calm"
    run = export.start(output)
    run.wait_for(lambda: count_objects(output) > 1)
    first = run.seconds
    run.wait_for(lambda: f" -> {output}" in run.text)
    last = run.seconds
    run.finish()
    return objects(output), (last, last - first)


def write_dataset(folder: Path) -> str:
    """Images with captions, of which one in ten has none."""
    photos = folder / "photos"
    photos.mkdir()
    chance = random.Random(0)
    for number in range(SAMPLES):
        jpeg = io.BytesIO()
        Image.frombytes("RGB", (6, 4), chance.randbytes(72)).resize((48, 32)).save(jpeg, "JPEG")
        (photos / f"{number:05d}.jpg").write_bytes(jpeg.getvalue())
        if number % 10:
            (photos / f"{number:05d}.txt").write_text(f"photograph {number} of {SAMPLES}")
    codes = {"name": "patch_codebook", "params": {"size": 64}}
    recipe = {
        "corpus": str(photos),
        "output": str(folder / "dataset"),
        "views": {"size": 32, "count": VIEWS},
        "units": {"samples": 64},
        "modalities": {"rgb": {"tokenizer": codes}, "caption": {"keep": "both"}},
    }
    weave(parse_recipe(recipe))
    return str(folder / "dataset")


def main() -> int:
    options = _options()
    adopt_orphans()
    result = {"seed": options.seed, "kills": {}, "restarts": 0, "finished": 0}
    return told(result, lambda folder, stack: _torment_all(options, folder, stack, result))


def _torment_all(options: argparse.Namespace, folder: Path, stack: ExitStack, result: dict) -> None:
    for sub in ("ray", "logs"):
        (folder / sub).mkdir()
    dataset, place = write_dataset(folder), str(folder)
    if options.storage == "s3":
        result["server"], place = stack.enter_context(s3_server(folder / "s3")), f"s3://{BUCKET}"
    for name in FORMATS if options.to == "all" else [options.to]:
        export = Export(folder, dataset, place, name)
        expected, seconds = export_in_peace(export)
        times = f"{seconds[0]:.1f} s, {seconds[1]:.1f} s of them for pieces"
        print(f"{time.strftime('%T')} {name}, undisturbed: {len(expected)} objects; {times}", flush=True)
        for target in TARGETS if options.target == "all" else [options.target]:
            chance = random.Random(f"{options.seed} {name} {target}")
            torment = Torment(export, expected, seconds, target, options.kills, chance)
            try:
                torment.run()
            finally:
                result["kills"][f"{name} {target}"] = torment.done
                result["restarts"] += torment.restarts
                result["finished"] += torment.finished


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 kill per format and target")
    parser.add_argument("--kills", type=int, help="kills per format and target (5)")
    parser.add_argument("--to", choices=[*FORMATS, "all"], default="all")
    parser.add_argument("--target", choices=[*TARGETS, "all"], default="all")
    parser.add_argument("--storage", choices=["local", "s3"], default="local")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.kills = options.kills or (1 if options.quick else 5)
    return options


if __name__ == "__main__":
    sys.exit(main())
