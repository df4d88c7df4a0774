"""How many requests a dataset takes to be read, before and after `tokenloom compact`.

    python tests/benchmarks/compaction.py [--quick]

A dataset of three modalities with random tokens, in units of 256 samples and corpus shards of 1,024, on a local disk
through the store that also serves S3, whose GET and HEAD requests are counted: all rows read in order, and units here
and there. `ratio` is the limit, one GET per modality and 4,096 samples, by what reading in order takes after the
compaction; 1 and more means that it is kept. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from unittest import mock

import numpy as np
from tokenloom.labelers.contract.kinds import Image, Text
from tokenloom.pipeline.checks.garbage import remove_garbage
from tokenloom.pipeline.cluster.session import stop_ray
from tokenloom.pipeline.compact import compact
from tokenloom.pipeline.corpus.taken import Listing
from tokenloom.pipeline.corpus.units import Unit, shard_id
from tokenloom.pipeline.dataset.dataset import Dataset, open_dataset
from tokenloom.pipeline.dataset.layout import manifest_path, token_path
from tokenloom.pipeline.dataset.listings import store_listing
from tokenloom.pipeline.dataset.manifest import CorpusCard, Manifest
from tokenloom.pipeline.dataset.shards import RowKeys, ShardMeta, write_tokens
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.contract.token_spec import TokenSpec
from training_sets import card

SPECS = {
    "rgb": TokenSpec("grid", 16384, 196, 196),
    "dinov2": TokenSpec("grid", 8192, 256, 256),
    "caption": TokenSpec("text", 30_000, None, 256),
}
SAMPLES, IN_SHARD = 256, 4
LIMIT = 4096
"""Samples for each of which one GET a modality is allowed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="16,384 samples instead of 131,072")
    units = 64 if parser.parse_args().quick else 512
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        write_dataset(Store(folder), units)
        before = measure(folder)
        began = time.perf_counter()
        try:
            compact(folder)
        finally:
            stop_ray()
        seconds = time.perf_counter() - began
        remove_garbage(Store(folder), timedelta(seconds=-2))  # as by a clock that tells whole seconds
        after = measure(folder)
    allowed = 1000 * len(SPECS) / LIMIT
    ratio = round(allowed / after["in_order"]["GET"], 2)
    figures = {"per_1000_samples": {"before": before, "after": after}, "compact_s": round(seconds, 1), "ratio": ratio}
    print(json.dumps(figures))


def measure(folder: str) -> dict[str, dict[str, float]]:
    """Requests per 1,000 samples once the dataset has been opened and listed: all rows in order; 16 units by chance."""
    dataset = open_dataset(folder)
    units = dataset.units()
    chance = [units[at] for at in np.random.default_rng(0).permutation(len(units))[:16]]
    dataset["0/0"]  # it knows now where everything lies
    return {
        "in_order": counted(lambda: sum(1 for _ in dataset.iterate()), len(dataset)),
        "by_chance": counted(lambda: [read(dataset, unit) for unit in chance], SAMPLES * len(chance)),
    }


def read(dataset: Dataset, unit: Unit) -> None:
    for name in SPECS:
        dataset.reader.columns.token_table(unit, name)


def counted(work: Callable[[], Any], samples: int) -> dict[str, float]:
    requests = Counter[str]()
    with ExitStack() as stack:
        for name, kind in (("read", "GET"), ("read_range", "GET"), ("stat", "HEAD")):
            stack.enter_context(mock.patch.object(Store, name, _counting(getattr(Store, name), kind, requests)))
        work()
    return {kind: round(1000 * requests[kind] / samples, 3) for kind in ("GET", "HEAD")}


def _counting(operation: Callable[..., Any], kind: str, requests: Counter[str]) -> Callable[..., Any]:
    def count(store: Store, *arguments: Any) -> Any:
        requests[kind] += 1
        return operation(store, *arguments)

    return count


def write_dataset(store: Store, units: int) -> None:
    rng = np.random.default_rng(1)
    shards = {f"{index:05d}.tar": 1000 for index in range(units // IN_SHARD)}
    listing = Listing("tar", shards)
    store_listing(store, listing)
    kinds = {"text": (Text(), "wordpiece"), "grid": (Image(1, content="classes"), "codebook")}
    cards = {name: card(spec, *kinds[spec.type]) for name, spec in SPECS.items()}
    corpus = CorpusCard(["photographs"], "photographs", len(shards), 1000 * len(shards), [listing.digest])
    views = {"size": 224, "count": 1, "min_scale": 0.8}
    store.create(manifest_path(1), Manifest(corpus, 0, views, {"samples": SAMPLES, "bytes": 2**26}, cards).to_bytes())
    for number in range(units):
        path, place = f"{number // IN_SHARD:05d}.tar", number % IN_SHARD
        stop = 250 * (place + 1) if place + 1 < IN_SHARD else None
        unit = Unit(shard_id(path, 1000), 250 * place, stop, SAMPLES)
        rows = RowKeys.of([f"{number}/{index}" for index in range(SAMPLES)], 1)
        for name, spec in SPECS.items():
            lengths = [spec.length or int(rng.integers(5, 60)) for _ in range(SAMPLES)]
            tokens = [rng.integers(0, spec.vocabulary, length).astype(np.uint16) for length in lengths]
            generation = cards[name].tokens_generation
            data = write_tokens(rows, tokens, spec, ShardMeta(unit.name, name, generation))
            store.create(token_path(name, generation, unit), data)


if __name__ == "__main__":
    main()
