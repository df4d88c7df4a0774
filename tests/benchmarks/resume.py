"""How long a run takes to find what is left of a large dataset, and how much memory.

    python tests/benchmarks/resume.py [--quick] [--units 100000]

The dataset is one of 10 modalities on a local disk, of which planning reads the listings and the manifest alone: its
shards are empty files with the names that a run would have given them, for a corpus of tars with 50 units each. Four
questions, each answered by a process of its own that starts with the imports:

- plan: `make_plan` on the finished dataset.
- run: `make_plan` and `execute`, which finds nothing to do.
- plan_one_missing: `make_plan` where one of the 10 modalities lacks all its units.
- plan_scattered: `make_plan` where every modality lacks every tenth unit, each another one.

The last line is a JSON object: for each question seconds of wall clock and of CPU, peak memory in MB, objects read from
storage, and units found missing. `ratio` is the smallest of limit by measured: 60 s for a plan, 30 s for the run, and
1,000 MB for any; 1 and more means that all limits are kept.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
UNITS_PER_SHARD = 50
UNIT_SAMPLES = 256
UNIT_BYTES = 10_240_000
if TYPE_CHECKING:
    from tokenloom.pipeline.dataset.cards import ModalityCard

MODALITIES: dict[str, dict[str, str]] = {
    "rgb": {},
    "caption": {},
    "canny_edge": {},
    "color_palette": {},
    "metadata": {},
    **{
        name: {"labeler": f"light_labelers:{name.title().replace('_', '')}"}
        for name in ("mean_colour", "sharpness", "thumbnail", "hue_histogram", "edge_density")
    },
}
LIMITS = {"plan": 60.0, "run": 30.0, "plan_one_missing": 60.0, "plan_scattered": 60.0}
MOST_MEMORY = 1000.0


@dataclass(frozen=True)
class Answer:
    """seconds: wall clock. read: objects of the output or corpus whose content was asked for."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    read: list[str]
    units_missing: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5,000 units")
    parser.add_argument("--units", type=int, default=100_000, help="finished units, a multiple of 500")
    parser.add_argument("--answer", choices=LIMITS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        print(json.dumps(asdict(answer(options.answer, options.folder))))
        return
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        print(json.dumps(benchmark(Path(folder), 5_000 if options.quick else options.units)))


def benchmark(folder: Path, units: int) -> dict[str, object]:
    _say(f"creating {units * len(MODALITIES):,} empty shards")
    _create(folder, units)
    answers = {"plan": _ask("plan", folder), "run": _ask("run", folder)}
    _say("removing the shards of one modality")
    kept = (folder / "dataset" / "sharpness").rename(folder / "sharpness")
    answers["plan_one_missing"] = _ask("plan_one_missing", folder)
    kept.rename(folder / "dataset" / "sharpness")
    _say("removing every tenth shard")
    for index, modality in enumerate(MODALITIES):
        for path in sorted((folder / "dataset" / modality).rglob("*.*"))[index::10]:
            path.unlink()
    answers["plan_scattered"] = _ask("plan_scattered", folder)
    expected = {"plan": 0, "run": 0, "plan_one_missing": units, "plan_scattered": units}
    found = {question: one.units_missing for question, one in answers.items()}
    if found != expected:
        raise SystemExit(f"the plans list {found} units, and {expected} are missing")
    slowest = min(LIMITS[question] / one.seconds for question, one in answers.items())
    largest = min(MOST_MEMORY / one.peak_mb for one in answers.values())
    return {
        "units": units,
        "modalities": len(MODALITIES),
        **{question: asdict(one) for question, one in answers.items()},
        "ratio": round(min(slowest, largest), 2),
    }


def answer(question: str, folder: Path) -> Answer:
    """In a process of its own, since memory is judged by its peak."""
    began = time.perf_counter()
    from tokenloom.pipeline.plan.plan import make_plan
    from tokenloom.pipeline.run import execute

    read = _count_reads()
    plan = make_plan(_recipe(folder))
    missing = sum(_units(work.start, work.stop) for work in plan.works)
    if question == "run":
        execute(plan)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Answer(
        seconds=round(time.perf_counter() - began, 2),
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 2),
        peak_mb=round(usage.ru_maxrss * 1024 / 1e6, 1),
        read=read,
        units_missing=missing,
    )


def _units(start: int, stop: int | None) -> int:
    return ((UNITS_PER_SHARD * UNIT_BYTES if stop is None else stop) - start) // UNIT_BYTES


def _count_reads() -> list[str]:
    """A list that grows by the path of every object of which any part is read, from here on."""
    from tokenloom.pipeline.storage.store import Store

    read: list[str] = []

    def counted(original: Callable[..., bytes]) -> Callable[..., bytes]:
        def counting(store: Store, path: str, *of: int) -> bytes:
            read.append(path)
            return original(store, path, *of)

        return counting

    for name in ("read", "read_range"):
        setattr(Store, name, counted(getattr(Store, name)))
    return read


def _create(folder: Path, units: int) -> None:
    """Corpus and dataset: sparse tars of the right length, the manifest, and empty shards."""
    from tokenloom.pipeline.dataset.finished import folders_of
    from tokenloom.pipeline.dataset.listings import store_listing
    from tokenloom.pipeline.dataset.manifest import publish
    from tokenloom.pipeline.plan.plan import make_plan
    from tokenloom.pipeline.storage.store import Store

    (folder / "corpus").mkdir()
    for index in range(units // UNITS_PER_SHARD):
        with open(folder / "corpus" / f"{index:05d}.tar", "wb") as tar:
            tar.truncate(UNITS_PER_SHARD * UNIT_BYTES)
    plan = make_plan(_recipe(folder))
    names = [name for shard in plan.shards for name in _unit_names(shard.id)]
    cards = {name: as_if_fitted(card) for name, card in plan.graph.cards.items()}
    for modality, card in cards.items():
        for place in folders_of(modality, card):
            (folder / "dataset" / place).mkdir(parents=True)
            for name in names:
                (folder / "dataset" / place / f"{name}.{'parquet' if card.keeps_tokens else 'tar'}").touch()
    if plan.growth.added:
        store_listing(Store(folder / "dataset"), plan.growth.added)
    publish(Store(folder / "dataset"), lambda now: replace(plan.manifest, modalities=cards))


def as_if_fitted(card: ModalityCard) -> ModalityCard:
    from tokenloom.tokenizers.contract.token_spec import TokenSpec

    tokens = card.tokens
    if tokens is None:
        return card
    vocabulary = replace(tokens.vocabulary, digest="0" * 64) if tokens.vocabulary else None
    return replace(card, tokens=replace(tokens, spec=TokenSpec("vector", 16, 4, 4), vocabulary=vocabulary))


def _unit_names(shard: str) -> Iterator[str]:
    from tokenloom.pipeline.corpus.units import Unit

    for index in range(UNITS_PER_SHARD):
        stop = None if index == UNITS_PER_SHARD - 1 else (index + 1) * UNIT_BYTES
        yield Unit(shard, index * UNIT_BYTES, stop, UNIT_SAMPLES).name


def _recipe(folder: Path):
    from tokenloom.pipeline.plan.recipe import parse_recipe

    return parse_recipe({"corpus": str(folder / "corpus"), "output": str(folder / "dataset"), "modalities": MODALITIES})


def _ask(question: str, folder: Path) -> Answer:
    command = [sys.executable, __file__, "--answer", question, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = Answer(**json.loads(done.stdout.splitlines()[-1]))
    _say(f"{question}: {found.seconds} s, {found.peak_mb} MB, read {found.read}, {found.units_missing:,} units missing")
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
