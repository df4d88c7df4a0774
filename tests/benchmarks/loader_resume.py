"""What it costs to go on in the middle of a run, and whether a loader's memory stays as it is.

    python tests/benchmarks/loader_resume.py [--quick]

Four datasets of 100,000 units with 18 modalities each, 101 million samples, are mixed. Their 7.2 million shards would
take longer to write than to measure: a store is made up that lists them all, and makes those that are read (16 units
of each dataset for a batch) beforehand, so that what is measured is all that a loader does but for the disk. For the
positions 0 and 10,000,000, in a process of its own each: `open` is seconds to list the datasets and to make the
mixture, `first_batch` seconds to the batch there, from the loaded state on. `resume` is the second sum less the first.

Memory is that of a process which makes 100,000 batches of 8 samples of one dataset on disk (4 units, epoch after
epoch): resident MiB after a tenth of them, and how many more at the end.

--quick: 10,000 units, 2,000 batches. `ratio` is the second first_batch by the first. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from tokenloom.pipeline.corpus.units import Unit
from tokenloom.pipeline.dataset.layout import token_path
from tokenloom.pipeline.dataset.manifest import require_manifest
from tokenloom.pipeline.dataset.reader import DatasetReader
from tokenloom.pipeline.storage.store import Entry, Store
from tokenloom.training.data.batches import Batches
from tokenloom.training.data.mixed import MixedDataset
from tokenloom.training.data.mixture import Mixture
from tokenloom.training.data.order import Order
from training_sets import NAMES, cards, schemes, shards_of, units_of, write_dataset, write_manifest

POSITIONS = (0, 10_000_000)


class MadeUp(Store):
    """A dataset whose shards are made when they are read, or before: `make` does it."""

    def __init__(self, url: str, units: list[Unit]) -> None:
        super().__init__(url)
        self._units, self._made, self._generations = units, {}, {n: c.tokens_generation for n, c in cards().items()}

    def list(self, prefix: str = "", recursive: bool = True, others: bool = False) -> list[Entry]:
        if prefix not in self._generations:
            return super().list(prefix, recursive, others)
        generation = self._generations[prefix]
        paths = (token_path(prefix, generation, unit)[len(prefix) + 1 :] for unit in self._units)
        return [Entry(path, 10_000, 0.0) for path in paths]

    def read(self, path: str) -> bytes:
        return self._made.pop(path, None) or super().read(path)

    def make(self, unit: Unit) -> None:
        self._made.update(shards_of(unit))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10,000 units instead of 100,000, 2,000 batches")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    units, batches = (10_000, 2_000) if arguments.quick else (100_000, 100_000)
    if arguments.part:
        print(json.dumps(memory(batches) if arguments.part == "memory" else start(units, int(arguments.part))))
        return
    quick = ["--quick"] * arguments.quick
    starts = {str(position): measured([*quick, "--part", str(position)]) for position in POSITIONS}
    first, later = (starts[str(position)] for position in POSITIONS)
    resume = round(sum(later.values()) - sum(first.values()), 3)
    ratio = round(later["first_batch"] / first["first_batch"], 2)
    found = {"starts": starts, "resume": resume, "resident": measured([*quick, "--part", "memory"]), "ratio": ratio}
    print(json.dumps(found))


def measured(arguments: list[str]) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def start(units: int, position: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        listed = units_of(units)
        stores = [MadeUp(f"{folder}/{index}", listed) for index in range(4)]
        for store in stores:
            write_manifest(store, units=1)
        began = time.process_time()
        mixture = mixed(stores)
        opened = time.process_time() - began
        state = {**Batches(mixture, 256).state_dict(), "position": position}
        again = Order(mixture._order.sources, mixture.seed, mixture.window)  # of which nothing was asked yet
        for source, places in again.places(np.arange(position, position + 256)):
            for unit in np.unique(places.unit).tolist():
                stores[source].make(mixture.units[source][unit])
        began = time.process_time()
        batches = Batches(mixture, 256)
        batches.load_state_dict(state)
        next(iter(batches))
        return {"open": round(opened, 3), "first_batch": round(time.process_time() - began, 3)}


def mixed(stores: Sequence[Store]) -> Mixture:
    datasets = [
        MixedDataset(f"photographs {index}", DatasetReader(store, require_manifest(store)), NAMES, 1.0 + index)
        for index, store in enumerate(stores)
    ]
    return Mixture(datasets, schemes(), (256, 256), (256, 256))


def memory(batches: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        store = Store(folder)
        write_dataset(store, units=4)
        stream = iter(Batches(mixed([store]), 8))
        for _ in islice(stream, batches // 10):
            pass
        before = resident()
        for _ in islice(stream, batches - batches // 10):
            pass
        after = resident()
    return {"mib": round(before / 2**20), "more": round((after - before) / 2**20, 1)}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
