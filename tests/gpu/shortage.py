"""A real shortage of memory: a batch that the GPU can't hold is halved until it fits, and its labels are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from full_size import FULL, tiny
from labeling import batches_of, share_apart
from tokenloom import Batch
from tokenloom.labelers.contract.views import ViewSettings, cut_view
from tokenloom.labelers.plugins.difference import TOLERANCE
from tokenloom.labelers.plugins.registry import find_labeler
from tokenloom.pipeline.engine.runner import Failed, Runner, take

LABELER = "dinov2"
ASKED = 512
SMALL = 4
APART = TOLERANCE["float16"]
"""How far labels may be apart, as a share of their largest value: float32 ones too, since the network is half precise,
and rounds otherwise for batches of another size."""
LEFT = 0.2
"""The share that is left of the memory that the large batch needs beside the weights."""


def shortage(folder: Path, device: str, quick: bool) -> dict[str, Any]:
    """What a runner comes to whose batches need five times the memory that there is.

    Raises RuntimeError where nothing was halved, a sample failed, or a label isn't that of a small batch.
    """
    network = tiny(LABELER) if quick else FULL[LABELER].network
    labeler = find_labeler(LABELER)(weights=str(network.write(folder / "weights")))
    runner = Runner(labeler, [modality.name for modality in labeler.makes], ASKED, device)
    batch = _views(ASKED)
    runner.batch_size = SMALL
    expected = runner.run(take(batch, range(4 * SMALL)))
    before, needed = torch.cuda.memory_allocated(), _needed(runner, batch)
    limit = before + LEFT * (needed - before)
    runner.batch_size = ASKED
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    try:
        with batches_of(labeler) as answered:
            found = runner.run(batch)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    wrong = _wrong(found, expected)
    if wrong or runner.batch_size == ASKED:
        raise RuntimeError(wrong or f"a batch of {ASKED} fitted into {limit / 2**20:.0f} MiB: nothing was halved")
    return {
        "labeler": LABELER,
        "asked": ASKED,
        "settled_on": runner.batch_size,
        "batches": len(answered),
        "mib_needed": round(needed / 2**20),
        "mib_given": round(limit / 2**20),
    }


def _needed(runner: Runner, batch: Batch) -> int:
    """Bytes that the whole batch takes at once, weights included, where there are enough."""
    runner.batch_size = len(batch)
    torch.cuda.reset_peak_memory_stats()
    runner.run(batch)
    if runner.batch_size < len(batch):
        raise RuntimeError(f"a batch of {len(batch)} doesn't even fit into all of the GPU")
    return torch.cuda.max_memory_allocated()


def _views(count: int) -> Batch:
    size = ViewSettings().size
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    keys = [f"{index:04d}" for index in range(count)]
    views = [cut_view(0, key, 0, size, size, ViewSettings()) for key in keys]
    return Batch(keys, images, views, [{}] * count)


def _wrong(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> str | None:
    """What is wrong with the labels that were `found`, the first of which are `expected`; None where nothing is."""
    failed = [label for labels in found.values() for label in labels if isinstance(label, Failed)]
    if failed:
        return f"{len(failed)} labels failed: {failed[0].error}: {failed[0].reason}"
    for name, labels in expected.items():
        for place, label in enumerate(labels):
            apart = share_apart(label, found[name][place])
            if apart is None or apart > APART:
                return f"{name} of sample {place} isn't that of a small batch: {apart} of its largest value apart"
    return None
