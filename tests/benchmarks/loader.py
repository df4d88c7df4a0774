"""How fast batches of a mixture are made: read from shards on disk, joined and masked.

    python tests/benchmarks/loader.py [--quick]

One dataset of 18 modalities (4M-21's without pixels and T5, and SigLIP) with tokens of their lengths, in units of 256
samples; 4M-21's masking, 256 input and 256 target tokens. Made in turn in this process, on one thread, over the same
units, by

- ours: `tokenloom.training.data.batches.Batches`, 256 samples a batch;
- plain: the same shards read by `open_dataset(...).iterate`, masked sample by sample and selected to the budgets as
  `plain_masking.py` says, and stacked into batches of the same arrays.

Seconds are those of the processor, so that what else a machine does counts less. samples_per_s: the best of three
rounds each, `wall` by the clock. reading: the share of ours' time that goes into reading shards. `ratio` is ours by
plain's. with_inputs: ours once more, with pixels of JPEGs of 500 x 375 in the view's crop, and T5's embeddings
(8 to 77 of 4,096 numbers), of another dataset. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from plain_masking import Alphas, PlainMasking
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.data.batches import Batches
from tokenloom.training.data.mixed import MixedDataset
from tokenloom.training.data.mixture import Mixture
from tokenloom.training.data.ride_along import PIXELS
from tokenloom.training.data.unit_tokens import read_unit
from training_sets import NAMES, SAMPLES, T5, schemes, write_dataset, write_illustrated

BUDGET, BATCH, ROUNDS = 256, 256, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, and fewer samples one by one")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        store, units = Store(folder), 16
        write_dataset(store, units)
        whole, alone = (units - 1) * BATCH, SAMPLES if quick else 4 * SAMPLES
        cpu: dict[str, list[float]] = {"ours": [], "plain": [], "reading": []}
        wall: list[float] = []
        for _ in range(1 if quick else ROUNDS):
            began = time.perf_counter()
            cpu["ours"].append(seconds(lambda: ours(folder, units)) / whole)
            wall.append((time.perf_counter() - began) / whole)
            cpu["plain"].append(seconds(lambda: plain(folder, alone)) / alone)
            cpu["reading"].append(seconds(lambda: reading(folder)) / whole)
        other = Store(f"{folder}/illustrated")
        write_illustrated(other, Path(folder, "corpus"), 2)
        with_inputs = BATCH / seconds(lambda: ours(other.url, 2, (T5, PIXELS)))
    best = {what: min(taken) for what, taken in cpu.items()}
    rates = {what: round(1 / best[what]) for what in ("ours", "plain")} | {"wall": round(1 / min(wall))}
    share = round(best["reading"] / best["ours"], 2)
    rates["with_inputs"] = round(with_inputs)
    print(json.dumps({"samples_per_s": rates, "reading": share, "ratio": round(best["plain"] / best["ours"], 1)}))


def seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def ours(url: str, units: int, inputs: tuple[str, ...] = ()) -> None:
    """An epoch, less what its last batch would take from the next."""
    dataset = MixedDataset("photographs", open_dataset(url).reader, (*NAMES, *inputs))
    mixture = Mixture([dataset], schemes(inputs), (BUDGET, BUDGET), (BUDGET, BUDGET))
    for batch in islice(Batches(mixture, BATCH), units - 1):
        assert batch.inputs.used.shape == (BATCH, BUDGET)


def plain(url: str, samples: int) -> None:
    drawn = schemes()
    alphas = [Alphas.of(NAMES, one.inputs, one.targets, one.keep) for one in drawn]
    masking = PlainMasking(NAMES, alphas, [one.weight for one in drawn], BUDGET)
    rows = islice(open_dataset(url).iterate(NAMES), samples)
    for batch in batched((masking.selected(masking.masked(row.values)) for row in rows), BATCH):
        arrays = {name: torch.stack([one[name] for one in batch]) for name in batch[0]}
        assert arrays["input_used"].shape == (BATCH, BUDGET)


def batched(samples: Iterator[dict[str, torch.Tensor]], size: int) -> Iterator[list[dict[str, torch.Tensor]]]:
    while batch := list(islice(samples, size)):
        yield batch


def reading(url: str) -> None:
    reader = open_dataset(url).reader
    columns = reader.columns
    for unit in reader.units(NAMES):
        read_unit(columns, unit, NAMES)


if __name__ == "__main__":
    main()
