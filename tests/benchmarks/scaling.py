"""Throughput of a run against the number of workers, where these wait and don't compute.

    python tests/benchmarks/scaling.py [--quick] [--most 16]

Ray runs on this machine alone, which claims as many CPUs as there are workers; the labeler sleeps an eighth of a second
for each image, 2 s for each unit, as one waits for a GPU. So what limits is the engine: reading, the driver's loop,
Ray's scheduling, and writing. Images are of 16 x 16 pixels. Of each run that stretch is measured in which all workers
are at work: from the time when each has finished `SKIPPED` units on average, to the last time before any of them ran
out of work.

The last line is a JSON object: units a second, seconds until the first unit and until all workers were there, and the
share of linear (throughput by that of one worker, by the number) for each number. `ratio` is the smallest share by
0.95; 1 and more means that it is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tiny_images import run, write_corpus

NUMBERS = (1, 2, 4, 8, 16)
LINEAR = 0.95
SAMPLES = 16
SKIPPED, MEASURED = 4, 12
"""Units for each worker: until it is measured, since Ray adds workers by and by, and while it is."""


@dataclass(frozen=True)
class Throughput:
    """units_per_second: while all workers were at work; first_seconds: until the first unit was done."""

    units_per_second: float
    first_seconds: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1, 2 and 4 workers")
    parser.add_argument("--most", type=int, default=16, help="workers")
    parser.add_argument("--only", type=int, nargs="*", help="these numbers of workers, beside 1")
    options = parser.parse_args()
    most = 4 if options.quick else options.most
    numbers = [1, *options.only] if options.only else [number for number in NUMBERS if number <= most]
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        print(json.dumps(benchmark(Path(folder), numbers)))


def benchmark(folder: Path, numbers: list[int]) -> dict[str, object]:
    import ray

    ray.init(
        num_cpus=max(numbers) + 1,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=300 * 2**20,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parent)}},
    )
    found: dict[int, Throughput] = {}
    for number in numbers:
        found[number] = _run(folder / str(number), number)
        print(f"{number} workers: {found[number]}", file=sys.stderr, flush=True)
    alone = found[1].units_per_second
    linear = {number: one.units_per_second / number / alone for number, one in found.items()}
    return {
        **{f"workers_{number}": asdict(one) for number, one in found.items()},
        "linear": {str(number): round(share, 3) for number, share in linear.items()},
        "ratio": round(min(linear.values()) / LINEAR, 3),
    }


def _run(folder: Path, workers: int) -> Throughput:
    folder.mkdir()
    units = workers * (SKIPPED + MEASURED + 2)
    write_corpus(folder / "corpus", units * SAMPLES)
    times: list[float] = []
    began = time.monotonic()

    def labelled(_: int) -> None:
        times.append(time.monotonic() - began)

    run(folder, {"sleeping": "sleeping_labelers:Sleeping"}, SAMPLES, labelled, workers)
    first, last = workers * SKIPPED, workers * (SKIPPED + MEASURED)
    rate = (last - first) / (times[last - 1] - times[first - 1])
    return Throughput(round(rate, 3), round(times[0], 2), round(times[-1], 2))


if __name__ == "__main__":
    main()
