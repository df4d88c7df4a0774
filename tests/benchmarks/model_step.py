"""How long a training step of the model takes: forward, backward, and AdamW.

    python tests/benchmarks/model_step.py [--quick] [--size tiny] [--budget 128] [--device cpu]

4M-21's modalities, pixels and T5's embeddings among them, as the loader gives them with 4M-21's masking; ids are cut to
codebooks of 1,024 codes and a vocabulary of 4,096. Two copies of a model make the same steps in turn, on one thread:

- ours: `training/model`, which embeds what the budgets select, and torch's fused AdamW;
- plain: `plain_fourm.py`, which embeds every token of every modality before it selects, and AdamW as torch has it.

Seconds are those of the processor (of a GPU those of the clock), the best of the steps. The table says what share of a
step each sort of work has. `difference`: the largest between their losses over all steps, relative. `outside`: the
share of a step that is neither matrix product nor attention. `ratio` is plain's seconds by ours. The last line is a
JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_fourm import as_tensors, plain_loss
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.data.batch import Batch
from tokenloom.training.data.loader import as_tensors as as_loaded
from tokenloom.training.data.masking import Masked
from tokenloom.training.data.mixed import MixedDataset
from tokenloom.training.data.mixture import Mixture
from tokenloom.training.data.ride_along import PIXELS
from tokenloom.training.model.config import ModelConfig
from tokenloom.training.model.fourm import FourM
from tokenloom.training.model.from_data import modalities_of
from tokenloom.training.model.losses import loss_weights
from tokenloom.training.model.start import initialise
from tokenloom.training.model.tokens import Sides
from torch.profiler import ProfilerActivity, profile
from training_sets import NAMES, T5, schemes, write_illustrated

CODES, WORDS = 1024, 4096

SORTS = {
    "matrix products, attention": ("mm", "bmm", "addmm", "scaled_dot_product", "linear"),
    "embeddings, selection": ("embedding", "index", "gather", "sort", "cat", "cumsum", "scatter"),
    "norms": ("layer_norm",),
    "loss": ("log_softmax", "nll_loss"),
    "optimiser": ("adamw", "adam", "zero_", "_foreach", "addcdiv", "addcmul", "lerp"),
}
"""Work by what the operators' names begin with; the first that fits counts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two samples a step, and fewer steps")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--budget", type=int, default=128, help="input tokens of a sample, and target tokens")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    samples, rounds = (2, 3) if given.quick else (8, 5)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        mixture = illustrated(Path(folder), given.budget)
        batches = [
            small(mixture.batch(np.arange(at, at + samples)), mixture) for at in range(0, rounds * samples, samples)
        ]
    modalities = [replace(one, vocabulary=vocabulary(mixture, one.name)) for one in modalities_of(mixture)]
    model = initialise(FourM(ModelConfig.of_size(given.size, modalities))).to(given.device)
    models = {"ours": model, "plain": deepcopy(model)}
    optimisers = {
        name: torch.optim.AdamW(one.parameters(), 1e-4, fused=name == "ours" or None) for name, one in models.items()
    }
    losses = {"ours": ours, "plain": plain}
    taken: dict[str, list[float]] = defaultdict(list)
    values: dict[str, list[float]] = defaultdict(list)
    for batch in batches:
        for name, one in models.items():
            loss = losses[name](one, batch, given.device)
            seconds, value = timed(lambda loss=loss, name=name: step(loss, optimisers[name]), given.device)
            taken[name].append(seconds)
            values[name].append(value)
    shares = {
        name: shares_of(losses[name](one, batches[0], given.device), optimisers[name]) for name, one in models.items()
    }
    print_table(shares)
    best = {name: min(one) for name, one in taken.items()}
    differences = np.abs(np.array(values["ours"]) / np.array(values["plain"]) - 1)
    outside = {name: round(1 - one["matrix products, attention"], 3) for name, one in shares.items()}
    told: dict[str, Any] = {"seconds": {name: round(one, 3) for name, one in best.items()}, "outside": outside}
    told |= {"difference": float(f"{differences.max():.1g}"), "ratio": round(best["plain"] / best["ours"], 2)}
    print(json.dumps(told))


def illustrated(folder: Path, budget: int) -> Mixture:
    store = Store(f"{folder}/dataset")
    write_illustrated(store, folder / "corpus", 1)
    dataset = MixedDataset("photographs", open_dataset(store.url).reader, (*NAMES, T5, PIXELS))
    return Mixture([dataset], schemes((T5, PIXELS)), (budget, budget), (budget, budget))


def vocabulary(mixture: Mixture, name: str) -> int:
    spec = mixture.spec(name)
    return 0 if spec is None else WORDS if spec.type == "text" else CODES


def small(batch: Batch, mixture: Mixture) -> Batch:
    """With ids that these vocabularies have."""
    most = np.array([vocabulary(mixture, name) or 2**30 for name in batch.modalities] + [1])

    def cut(side: Masked) -> Masked:
        own = most[side.modality]
        labels = None if side.labels is None else np.where(side.labels >= 0, side.labels % own, side.labels)
        return replace(side, ids=np.where(side.ids >= 0, side.ids % own, side.ids), labels=labels)

    return replace(batch, inputs=cut(batch.inputs), targets=cut(batch.targets))


def ours(model: FourM, batch: Batch, device: str) -> Callable[[], torch.Tensor]:
    """What computes the loss, from what the loader has made."""
    config, loaded = model.config, as_loaded(batch)

    def loss() -> torch.Tensor:
        sides = Sides.of(config, loaded, batch.modalities)
        return loss_weights(config, sides.labels.said(config), "mod").to(device) @ model(sides.to(device))

    return loss


def plain(model: FourM, batch: Batch, device: str) -> Callable[[], torch.Tensor]:
    tensors = {name: {key: value.to(device) for key, value in one.items()} for name, one in as_tensors(batch).items()}
    lengths = batch.inputs.ids.shape[1], batch.targets.ids.shape[1]
    return lambda: plain_loss(model, tensors, lengths)


def step(loss: Callable[[], torch.Tensor], optimiser: torch.optim.Optimizer) -> float:
    optimiser.zero_grad()
    value = loss()
    value.backward()
    optimiser.step()
    return value.item()


def timed(work: Callable[[], float], device: str) -> tuple[float, float]:
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    value = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - began, value


def shares_of(loss: Callable[[], torch.Tensor], optimiser: torch.optim.Optimizer) -> dict[str, float]:
    """Of a step's time, by sort of work."""
    gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    with profile(activities=[ProfilerActivity.CPU, *gpu]) as profiler:
        step(loss, optimiser)
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        spent[sort_of(event.key)] += event.self_device_time_total if gpu else event.self_cpu_time_total
    total = sum(spent.values())
    return {sort: spent[sort] / total for sort in (*SORTS, "others")}


def sort_of(operator: str) -> str:
    name = operator.partition("::")[2].lower().lstrip("_") or operator.lower()
    return next((sort for sort, begins in SORTS.items() if any(one.lstrip("_") in name for one in begins)), "others")


def print_table(shares: dict[str, dict[str, float]]) -> None:
    print(f"{'share of a step':28}{''.join(f'{name:>8}' for name in shares)}")
    for sort in next(iter(shares.values())):
        print(f"{sort:28}{''.join(f'{one[sort]:8.1%}' for one in shares.values())}")
    print()


if __name__ == "__main__":
    main()
