"""Every labeler at work: its stage against a bare loop of the same model, and half precision against float32."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from full_size import FULL, FullSize, tiny
from meters import inference, median_ratio, on_gpu, per_second, spent
from photographs import write_tars
from precision import errors_of
from stages import Recording, forget, networks, recorded, weave, worker_for
from tokenloom import Batch
from tokenloom.labelers.networks.hub import quiet_transformers
from tokenloom.labelers.plugins.difference import difference
from tokenloom.labelers.plugins.registry import find_labeler
from tokenloom.pipeline.engine.payload import UnitPayload
from tokenloom.pipeline.engine.runner import Runner, take
from tokenloom.pipeline.engine.stage import StageWorker

BATCHES = 8
"""How many batches a unit has; the first of them waits for pictures to be decoded, as in any unit."""
FEW = 4
"""Samples of a unit with `--quick`."""
COMPARED = 8
"""Samples whose labels are compared."""


@dataclass(frozen=True)
class Settings:
    """device: as torch names it. quick: tiny networks and few samples. seconds: to measure each labeler for, at least
    two rounds long, or one where it is quick."""

    device: str
    quick: bool
    seconds: float


@dataclass
class Labelling:
    """A labeler in the worker of its stage, with a unit that it has labelled once. batches: what it was given there."""

    name: str
    size: FullSize
    folder: Path
    settings: Settings
    worker: StageWorker
    payload: UnitPayload
    runner: Runner
    batches: list[Batch]

    @property
    def dtype(self) -> str | None:
        """What the engine has the model run in on this device."""
        return self.runner.labeler.autocast if on_gpu(self.settings.device) else None

    @property
    def parameters(self) -> int:
        """Of the networks that the labeler holds."""
        found = networks(self.runner.labeler)
        return sum({id(p): p.numel() for network in found for p in network.parameters()}.values())

    def stage(self) -> None:
        """The unit through the whole stage: decoding, labelling and writing."""
        forget(self.folder, self.name)
        self.worker.process(self.payload)

    def loop(self) -> None:
        """The same batches, decoded already, through the labeler and nothing else."""
        for batch in self.batches:
            with inference(self.settings.device, self.dtype):
                self.runner.labeler.label(batch)

    def calls(self) -> Recording:
        """What the labeler calls its networks for, for the first batch."""
        with recorded(self.runner.labeler) as record, inference(self.settings.device, self.dtype):
            self.runner.labeler.label(self.batches[0])
        return record


@contextmanager
def at_work(name: str, folder: Path, tars: Path, settings: Settings) -> Iterator[Labelling]:
    """The labeler of the modality `name`, loaded and warm; what it takes of memory and of the disk is given back.

    folder: for its weights and its dataset. tars: where photographs are kept for all labelers. Raises RuntimeError
    where it fails to label a photograph.
    """
    size = FULL[name]
    network = tiny(name) if settings.quick else size.network
    with quiet_transformers():
        weights = network.write(folder / "weights")
    labeler_class = find_labeler(network.settings.get("labeler", name))
    images = FEW if settings.quick else max(1, round(BATCHES * labeler_class.batch_size * network.scale))
    (tar,) = write_tars(tars / str(images), 1, per_tar=images)
    weave(folder, tar, network.needs)
    recipe = {**network.needs, name: {**network.settings, "weights": str(weights), "keep": "labels"}}
    worker, payload = worker_for(folder, tar, recipe, name, gpus=float(on_gpu(settings.device)))
    try:
        worker.labeler.load()
        (runner,) = worker.labeler.models.runners.values()
        with batches_of(runner.labeler) as batches:
            _, failed = worker.process(payload).done[name]
        if failed or not batches:
            raise RuntimeError(f"{failed} of {len(payload.samples)} photographs have no label")
        yield Labelling(name, size, folder, settings, worker, payload, runner, batches)
    finally:
        worker.labeler.models.unload()
        del worker
        gc.collect()


@contextmanager
def batches_of(labeler: Any) -> Iterator[list[Batch]]:
    """The batches that the labeler is given while it is inside, those alone that it has answered."""
    batches: list[Batch] = []
    label = labeler.label

    def watched(batch: Batch) -> Any:
        answer = label(batch)
        batches.append(batch)
        return answer

    labeler.label = watched
    try:
        yield batches
    finally:
        del labeler.label


def speed(at: Labelling) -> dict[str, Any]:
    """Images per second and peak memory of the stage, of the bare loop, and of the network's calls alone, in turns."""
    device, images = at.settings.device, len(at.payload.samples)
    peaks = {"stage": spent(device, at.stage).peak_mib, "loop": spent(device, at.loop).peak_mib}
    record = at.calls() if at.size.replayed else Recording()
    rounds: dict[str, list[float]] = {"stage": [], "loop": [], "network": []}
    began = perf_counter()
    while len(rounds["stage"]) < (1 if at.settings.quick else 2) or perf_counter() - began < at.settings.seconds:
        rounds["stage"].append(spent(device, at.stage).seconds)
        rounds["loop"].append(spent(device, at.loop).seconds)
        if record.calls:
            rounds["network"].append(spent(device, lambda: _replayed(record, device, at.dtype)).seconds)
    asked = at.worker.config.stage.steps[0].batch_size
    figures = {
        "like": at.size.like if not at.settings.quick else "tiny",
        "million_parameters": round(at.parameters / 1e6, 1),
        "million_parameters_of_its_card": None if at.settings.quick else at.size.millions,
        "autocast": at.dtype,
        "images": images,
        "rounds": len(rounds["stage"]),
        "batch_size": at.runner.batch_size,
        "halved_from": asked if at.runner.batch_size < asked else None,
        "stage_per_second": per_second(images, rounds["stage"]),
        "loop_per_second": per_second(images, rounds["loop"]),
        "stage_to_loop": median_ratio(rounds["loop"], rounds["stage"]),
        "stage_peak_mib": peaks["stage"],
        "loop_peak_mib": peaks["loop"],
    }
    if record.calls:
        first = len(at.batches[0])
        figures["network_per_second"] = per_second(first, rounds["network"])
        shares = [seconds * images / first for seconds in rounds["network"]]
        figures["stage_to_network"] = median_ratio(shares, rounds["stage"])
    return figures


def precision(at: Labelling) -> dict[str, Any]:
    """By modality, how far its labels under the labeler's own autocast are from those in float32.

    mean, largest, changed: as precision.py has them, of `count` labels. largest_of_peak: the largest difference of
    floats as a share of their largest value, the measure of `difference`, beyond whose tolerance so many labels are.
    """
    labeler = at.runner.labeler
    if labeler.autocast is None:
        return {"autocast": None}
    batch = take(at.batches[0], range(min(COMPARED, len(at.batches[0]))))
    answers = []
    for dtype in (None, labeler.autocast):
        with inference(at.settings.device, dtype):
            answers.append(labeler.label(batch))
    exact, rounded = answers
    errors = errors_of(labeler.makes, exact, rounded)
    found: dict[str, Any] = {"autocast": labeler.autocast}
    for modality in labeler.makes:
        pairs = [
            (modality.kind.check(one), modality.kind.check(other))
            for one, other in zip(exact[modality.name], rounded[modality.name], strict=True)
            if one is not None and other is not None
        ]
        beyond = [how for one, other in pairs if (how := difference(one, other))]
        found[modality.name] = {
            **asdict(errors[modality.name]),
            "largest_of_peak": max(
                (share for pair in pairs if (share := share_apart(*pair)) is not None), default=None
            ),
            "beyond_tolerance": len(beyond),
            "for_example": beyond[0] if beyond else None,
        }
    return found


def _replayed(record: Recording, device: str, dtype: str | None) -> None:
    with inference(device, dtype):
        for call in record.calls:
            call()


def share_apart(one: Any, other: Any) -> float | None:
    """How far two arrays of floats are apart at most, as a share of the largest value; None for other labels."""
    if not isinstance(one, np.ndarray) or one.dtype.kind != "f" or not one.size or one.shape != other.shape:
        return None
    one, other = one.astype(np.float64), other.astype(np.float64)
    return float(np.abs(one - other).max() / max(float(np.abs(one).max()), 1e-12))
