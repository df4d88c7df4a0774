"""What memory a run's driver takes after 1,000 units and after 10,000.

    python tests/benchmarks/driver_memory.py [--quick] [--units 10000]

Units are of one image of 16 x 16 pixels: the driver's memory hangs on their number alone. This
process is the driver. Memory is the driver's own (RssAnon, MB).

The last line is a JSON object: memory after a tenth of the units and after all, bytes that each unit in between has
added, and seconds. `ratio` is the former by the latter memory; 1 is flat.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from measuring import own_memory
from tiny_images import run, write_corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 units")
    parser.add_argument("--units", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        print(json.dumps(benchmark(Path(folder), 2_000 if options.quick else options.units)))


def benchmark(folder: Path, units: int) -> dict[str, object]:
    write_corpus(folder / "corpus", units)
    memory: list[tuple[int, float]] = []
    began, every = time.monotonic(), max(1, units // 100)

    def labelled(done: int) -> None:
        if done % every == 0:
            memory.append((done, own_memory(os.getpid())))
            print(f"{done:,} units: {memory[-1][1]:.1f} MB", file=sys.stderr, flush=True)

    run(folder, {"mean_colour": "light_labelers:MeanColour"}, 1, labelled)
    early = median(mb for done, mb in memory if units * 0.08 <= done <= units * 0.12)
    late = median(mb for done, mb in memory if done >= units * 0.96)
    return {
        "units": units,
        "mb_after_a_tenth": round(early, 1),
        "mb_after_all": round(late, 1),
        "bytes_per_unit": round((late - early) * 1e6 / (0.88 * units)),
        "seconds": round(time.monotonic() - began, 1),
        "ratio": round(early / late, 3),
    }


if __name__ == "__main__":
    main()
