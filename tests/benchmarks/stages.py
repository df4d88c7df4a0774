"""How much of a network's own throughput a stage keeps: a stage of one labeler against the bare forward passes.

    python tests/benchmarks/stages.py [--quick] [--images 32] [--rounds 3] [--only depth,clip]

Per labeler, in one process, in turns: a stage worker takes a unit of JPEGs through decoding, preprocessing, network,
post-processing, the kind's check and the writing of labels; and the network alone runs on the very inputs that it was
given there. Networks have the sizes of small published checkpoints, with random weights (see stage_networks.py). Both
run on one torch thread; the stage decodes on two further ones, ahead of the network.

The last line is a JSON object: for each labeler its batch size, the median seconds per image of both, `bare_ratio`, the
median of the rounds' bare by stage, and `share`, that of the stage's time that it spends inside the network, which says
the same with less noise as long as the network is no slower there. `ratio` is the smallest share, `bare_ratio` the
smallest of the other.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from photographs import write_tars
from stage_networks import NETWORKS
from tokenloom.labelers.plugins.registry import find_labeler
from tokenloom.pipeline.corpus.corpus import Corpus, UnitLimits
from tokenloom.pipeline.dataset.listings import store_listing
from tokenloom.pipeline.dataset.manifest import publish
from tokenloom.pipeline.engine.config import stage_configs
from tokenloom.pipeline.engine.payload import UnitPayload
from tokenloom.pipeline.engine.stage import StageWorker
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import parse_recipe
from tokenloom.pipeline.plan.stages import Stage
from tokenloom.pipeline.storage.store import Store

RATIOS = {"ratio": "share", "bare_ratio": "bare_ratio"}
QUICK = ("dinov2", "clip", "det")


@dataclass(frozen=True)
class Figures:
    """Median seconds per image, and the medians of the rounds' ratios."""

    batch_size: int
    images: int
    stage: float
    bare: float
    bare_ratio: float
    share: float


@dataclass
class Recording:
    """Outermost calls of a network, each to be made again, and the seconds that they took."""

    calls: list[Callable[[], Any]] = field(default_factory=list)
    seconds: float = 0.0
    depth: int = 0


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    found: dict[str, Figures] = {}
    for name in options.only or (QUICK if options.quick else NETWORKS):
        with tempfile.TemporaryDirectory() as folder:
            images = 8 if options.quick else options.images
            found[name] = measure(name, Path(folder), images, 1 if options.quick else options.rounds)
        one = found[name]
        rates = f"{1 / one.stage:8.2f} images/s, bare {1 / one.bare:8.2f}, ratio {one.bare_ratio:.3f}"
        print(f"{name:<18} {rates}, {100 * one.share:.1f} % inside the network", flush=True)
    worst = {name: min(getattr(one, figure) for one in found.values()) for name, figure in RATIOS.items()}
    print(json.dumps({**worst, "labelers": {name: asdict(one) for name, one in found.items()}}))


def measure(name: str, folder: Path, images: int, rounds: int) -> Figures:
    """Times the labeler of the modality `name` on so many photographs."""
    network = NETWORKS[name]
    images = max(1, round(images * network.scale))
    (tar,) = write_tars(folder / "tars", 1, per_tar=images)
    weights = network.write(folder / "weights")
    weave(folder, tar, network.needs)
    settings = {name: {**network.settings, "weights": str(weights), "keep": "labels"}}
    worker, payload = worker_for(folder, tar, {**network.needs, **settings}, name)
    worker.labeler.load()
    (runner,) = worker.labeler.models.runners.values()
    with recorded(runner.labeler) as first:
        _, failed = worker.process(payload).done[name]
    if failed or not first.calls:
        raise SystemExit(f"{name}: {failed} labels failed, {len(first.calls)} calls of its network were seen")
    stage, bare, shares = [], [], []
    for _ in range(rounds):
        forget(folder, name)
        with recorded(runner.labeler) as record:
            stage.append(_timed(lambda: worker.process(payload)))
        shares.append(record.seconds / stage[-1])
        bare.append(_timed(lambda: replay(first.calls)))
    ratios = median(one / other for one, other in zip(bare, stage, strict=True))
    seconds = median(stage) / images, median(bare) / images
    return Figures(runner.batch_size, images, *seconds, ratios, median(shares))


@contextmanager
def recorded(labeler: Any) -> Iterator[Recording]:
    """What the labeler's networks are called for while it is inside."""
    record = Recording()
    undo: list[tuple[torch.nn.Module, str]] = []

    def watch(module: torch.nn.Module, method: str) -> None:
        original = getattr(module, method)

        @functools.wraps(original)  # transformers looks at signatures
        def call(*args: Any, **kwargs: Any) -> Any:
            if record.depth:
                return original(*args, **kwargs)
            record.calls.append(lambda: original(*args, **kwargs))
            record.depth += 1
            began = perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                record.seconds += perf_counter() - began
                record.depth -= 1

        object.__setattr__(module, method, call)
        undo.append((module, method))

    for network in networks(labeler):
        if hasattr(network, "generate"):
            watch(network, "generate")
        for module in network.modules():  # a labeler may call parts of its network alone
            watch(module, "forward")
    try:
        yield record
    finally:
        for module, method in undo:
            object.__delattr__(module, method)


def networks(labeler: Any) -> list[torch.nn.Module]:
    """The networks among the labeler's attributes, and one level below them."""
    found = [value for value in vars(labeler).values() if isinstance(value, torch.nn.Module)]
    holders = [value for value in vars(labeler).values() if type(value).__module__.startswith("tokenloom.")]
    return found + [v for holder in holders for v in vars(holder).values() if isinstance(v, torch.nn.Module)]


def replay(calls: Sequence[Callable[[], Any]]) -> None:
    with torch.inference_mode():
        for call in calls:
            call()


def _timed(action: Callable[[], Any]) -> float:
    began = perf_counter()
    action()
    return perf_counter() - began


def weave(folder: Path, tar: Path, modalities: Mapping[str, Any]) -> None:
    """Makes what the labeler needs, so that its own stage finds it in the dataset."""
    for name in modalities:
        worker, payload = worker_for(folder, tar, modalities, name)
        worker.process(payload)


def worker_for(
    folder: Path, tar: Path, modalities: Mapping[str, Any], name: str, gpus: float = 0.0
) -> tuple[StageWorker, UnitPayload]:
    """A worker for the step that makes `name` alone, with two CPUs and so many GPUs, and the corpus as one unit."""
    recipe = parse_recipe(
        {
            "corpus": str(tar),
            "output": str(folder / "dataset"),
            "modalities": modalities,
            "accept_license": [weights.licence for n in modalities if (weights := find_labeler(n).weights)],
        }
    )
    plan = make_plan(recipe)
    if plan.growth.added:
        store_listing(Store(recipe.output), plan.growth.added)
    publish(Store(recipe.output), lambda now: plan.manifest)
    step = plan.graph.step_of(name)
    (config,) = stage_configs(plan, [Stage(name, (step,), 2.0, gpus, 0, 1, 1)])
    (work,) = plan.works
    (unit,) = Corpus(recipe.corpus).read(work.shard, work.start, work.stop, UnitLimits(10_000, 2**40))
    return StageWorker(config), UnitPayload.of(unit, (name,), kept=work.kept)


def forget(folder: Path, name: str) -> None:
    """Takes the modality's shards away, so that they can be written again."""
    for path in (folder / "dataset" / name).rglob("*.tar"):
        path.unlink()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three labelers, 8 images, one round")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","), help="these labelers alone")
    return parser.parse_args()


if __name__ == "__main__":
    main()
