"""How long plan, resume and status take on a dataset of a million units of 20 modalities, and how much memory.

    python tests/benchmarks/listing.py [--quick] [--units 1000000]

Corpus and dataset lie in an S3 bucket whose listings come from a formula (synthetic_s3.py): the client and all behind
it are those of a run, over HTTP and in pages of 1,000 names, and none of the 20 million objects is written. The corpus
is of tars with 50 units each. The questions, each answered by a process of its own that starts with the imports:

- run: `make_plan` on the finished dataset, and `execute`, which finds nothing to do.
- status: `read_status`.
- plan_one_missing: `make_plan` where one of the modalities lacks all its units.
- plan_scattered: `make_plan` where every modality lacks every tenth unit, not all the same: there are as many pieces of
  work as units.

The last line is a JSON object: for each question seconds of wall clock and of CPU (the server's are not among the
latter), peak memory in MB, requests by their sort, and units found missing. `ratio` is the smallest of limit by
measured: 15 minutes, of which reading 20,000 pages takes most, and 1,000 MB; 1 and more means that all limits are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from resume import MODALITIES, UNIT_BYTES, UNIT_SAMPLES, UNITS_PER_SHARD, as_if_fitted
from synthetic_s3 import Formula, SyntheticS3

if TYPE_CHECKING:
    from tokenloom.pipeline.plan.recipe import Recipe
    from tokenloom.pipeline.storage.store import Store

MORE = 10
LIMITS = {"run": 900.0, "status": 900.0, "plan_one_missing": 900.0, "plan_scattered": 900.0}
MOST_MEMORY = 1000.0
CORPUS, DATASET = "bench/corpus", "bench/dataset"


@dataclass(frozen=True)
class Answer:
    """seconds: wall clock, plan_seconds: up to the plan; the other figures as the last line has them."""

    seconds: float
    plan_seconds: float
    cpu_seconds: float
    peak_mb: float
    units_missing: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 units")
    parser.add_argument("--units", type=int, default=1_000_000, help="finished units, a multiple of 500")
    parser.add_argument("--only", choices=LIMITS, help="this question alone")
    parser.add_argument("--answer", choices=LIMITS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        print(json.dumps(asdict(answer(options.answer))))
    else:
        print(json.dumps(benchmark(20_000 if options.quick else options.units, options.only)))


def benchmark(units: int, only: str | None) -> dict[str, object]:
    questions = [only] if only else list(LIMITS)
    expected = {question: units if question in ("plan_one_missing", "plan_scattered") else 0 for question in questions}
    answers: dict[str, Answer] = {}
    requests: dict[str, dict[str, int]] = {}
    with SyntheticS3() as server, _reached(server):
        server.folders[CORPUS] = Formula(units // UNITS_PER_SHARD, "{:05d}.tar".format, UNITS_PER_SHARD * UNIT_BYTES)
        places = _publish()
        for question in questions:
            _finish(server, places, units, question)
            server.requests.clear()
            answers[question] = _ask(question)
            requests[question] = dict(server.requests)
            _say(f"{question}: {answers[question]}, {requests[question]}")
    found = {question: one.units_missing for question, one in answers.items()}
    if found != expected:
        raise SystemExit(f"{found} units were found missing, and {expected} are")
    slowest = min(LIMITS[question] / one.seconds for question, one in answers.items())
    largest = min(MOST_MEMORY / one.peak_mb for one in answers.values())
    return {
        "units": units,
        "modalities": len(modalities()),
        **{question: {**asdict(one), "requests": requests[question]} for question, one in answers.items()},
        "ratio": round(min(slowest, largest), 2),
    }


def modalities() -> dict[str, dict[str, str]]:
    return {**MODALITIES, **{f"number_{n}": {"labeler": f"light_labelers:Number{n}"} for n in range(MORE)}}


def answer(question: str) -> Answer:
    """In a process of its own, since memory is judged by its peak."""
    began = time.perf_counter()
    from tokenloom.pipeline.checks.status import read_status
    from tokenloom.pipeline.plan.plan import make_plan
    from tokenloom.pipeline.run import execute
    from tokenloom.pipeline.storage.store import Store

    planned = 0.0
    if question == "status":
        status = read_status(Store(f"s3://{DATASET}"))
        missing = sum(not modality.finished for modality in status.modalities)
    else:
        plan = make_plan(_recipe())
        whole = UNITS_PER_SHARD * UNIT_BYTES
        missing = sum(((whole if one.stop is None else one.stop) - one.start) // UNIT_BYTES for one in plan.works)
        planned = time.perf_counter() - began
        if question == "run":
            execute(plan)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return Answer(
        seconds=round(time.perf_counter() - began, 2),
        plan_seconds=round(planned, 2),
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 2),
        peak_mb=round(usage.ru_maxrss * 1024 / 1e6, 1),
        units_missing=missing,
    )


def _recipe() -> Recipe:
    from tokenloom.pipeline.plan.recipe import parse_recipe

    return parse_recipe({"corpus": f"s3://{CORPUS}", "output": f"s3://{DATASET}", "modalities": modalities()})


def _publish() -> list[tuple[str, str]]:
    """The manifest of the dataset, with tokenizers as if fitted; modality and folder of what it names."""
    from tokenloom.pipeline.dataset.finished import folders_of
    from tokenloom.pipeline.dataset.listings import store_listing
    from tokenloom.pipeline.dataset.manifest import publish
    from tokenloom.pipeline.plan.plan import make_plan

    store, plan = _store(), make_plan(_recipe())
    cards = {name: as_if_fitted(card) for name, card in plan.graph.cards.items()}
    if plan.growth.added:
        store_listing(store, plan.growth.added)
    publish(store, lambda now: replace(plan.manifest, modalities=cards))
    return [(name, place) for name, card in cards.items() for place in folders_of(name, card)]


def _store() -> Store:
    from tokenloom.pipeline.storage.store import Store

    return Store(f"s3://{DATASET}")


def _finish(server: SyntheticS3, places: list[tuple[str, str]], units: int, question: str) -> None:
    """Fills the folders with what is there when the question is asked."""
    from tokenloom.pipeline.corpus.units import shard_id

    size = UNITS_PER_SHARD * UNIT_BYTES
    shards = [shard_id(f"{index:05d}.tar", size) for index in range(units // UNITS_PER_SHARD)]
    names = list(modalities())
    for modality, place in places:
        extension = "parquet" if place.rpartition("/")[2].startswith("tokens-") else "tar"
        lacking = names.index(modality) % 10 if question == "plan_scattered" else None
        count = units - units // 10 if lacking is not None else units
        name = _namer(shards, extension, lacking)
        server.folders[f"{DATASET}/{place}"] = Formula(count, name, 12_345)
    if question == "plan_one_missing":
        (place,) = (place for modality, place in places if modality == "sharpness")
        del server.folders[f"{DATASET}/{place}"]


def _namer(shards: list[str], extension: str, lacking: int | None):
    """The names of units' shards in order; without those of every ten that are `lacking`."""
    ends = [f"{(at + 1) * UNIT_BYTES:012d}" for at in range(UNITS_PER_SHARD - 1)] + ["end"]

    def name(index: int) -> str:
        if lacking is not None:
            ten, one = divmod(index, 9)
            index = ten * 10 + one + (one >= lacking)
        shard, at = divmod(index, UNITS_PER_SHARD)
        return f"{shards[shard]}-{at * UNIT_BYTES:012d}-{ends[at]}-{UNIT_SAMPLES:05d}.{extension}"

    return name


@contextmanager
def _reached(server: SyntheticS3) -> Iterator[None]:
    """The environment by which this process and those that it starts reach the server."""
    found = dict(os.environ)
    keys = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(AWS_ENDPOINT_URL=server.endpoint, **keys)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(found)


def _ask(question: str) -> Answer:
    command = [sys.executable, __file__, "--answer", question]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Answer(**json.loads(done.stdout.splitlines()[-1]))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
