"""What half precision costs: the labels of every labeler that permits autocast, in bfloat16 against float32.

    python tests/benchmarks/precision.py [--quick] [--images 8] [--dtype bfloat16] [--device cpu] [--only depth,clip]

The weights are the tiny random ones that labelers write themselves, for DINOv2 real ones, so the figures tell how the
arithmetic of a labeler takes rounding rather than how a full network does; above all, what random networks decide by a
hair, as which object comes next, goes over more often. What a labeler requires is made by others in float32.

Numbers (maps, vectors, attributes) are compared by their differences as shares of the standard deviation of the float32
label, mean and largest, both as means over the images; classes by the share of pixels that change, texts by the share
of characters, instances by the share that has no partner of IoU 0.9 and the same class on the other side.

The last line is a JSON object with these figures per modality; `ratio` is the largest mean difference of numbers,
`ratio_changed` the largest share of what changed.
"""

from __future__ import annotations

import argparse
import json
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from difflib import SequenceMatcher
from io import BytesIO
from pathlib import Path
from typing import Any

from tokenloom.labelers.contract import crops

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from photographs import write_tars
from PIL import Image as Picture
from tokenloom import Batch, Labeler, Modality
from tokenloom.labelers.contract.instances import InstanceSet
from tokenloom.labelers.contract.kinds import Image, Kind
from tokenloom.labelers.contract.views import View, ViewSettings, cut_view
from tokenloom.labelers.plugins.registry import describe_labelers, find_labeler
from tokenloom.pipeline.commands.demo_weights import dinov2_small
from transformers.utils import logging

QUICK_IMAGES = 2


@dataclass(frozen=True)
class Sample:
    """A photograph with its centre view and its caption."""

    key: str
    image: np.ndarray
    view: View
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Error:
    """How a label in half precision differs from that in float32; None where there is nothing of that sort in it.

    mean, largest: of the differences between numbers, by the standard deviation of the float32 label's.
    changed: share of pixels, characters or instances. count: how many labels were compared.
    """

    mean: float | None = None
    largest: float | None = None
    changed: float | None = None
    count: int = 1


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    found: dict[str, Error] = {}
    with tempfile.TemporaryDirectory(prefix="tokenloom-precision-") as folder:
        bench = Bench(Path(folder), options.device)
        samples = photographs(Path(folder), QUICK_IMAGES if options.quick else options.images)
        print(f"{'labeler':<16} {'modality':<18} {'mean':>8} {'largest':>8} {'changed':>8}")
        for name in options.only or [row.reference for row in describe_labelers() if row.weights_licence]:
            labeler = bench.labeler(name)
            if labeler is None:
                print(f"{name:<16} not here: no tiny weights")
            elif labeler.autocast is None:
                print(f"{name:<16} always float32")
            else:
                errors = bench.compare(labeler, samples, getattr(torch, options.dtype))
                found |= errors
                for modality, error in errors.items():
                    figures = (_percent(figure) for figure in (error.mean, error.largest, error.changed))
                    print(f"{name:<16} {modality:<18} {' '.join(figures)}", flush=True)
    print(
        json.dumps(
            {
                "ratio": max((error.mean for error in found.values() if error.mean is not None), default=None),
                "ratio_changed": max((e.changed for e in found.values() if e.changed is not None), default=None),
                "dtype": options.dtype,
                "device": options.device,
                "modalities": {modality: asdict(error) for modality, error in found.items()},
            }
        )
    )


class Bench:
    """Labelers by name, with tiny weights, loaded once."""

    def __init__(self, folder: Path, device: str) -> None:
        self._folder = folder
        self._device = device
        self._labelers: dict[type[Labeler], Labeler | None] = {}

    def labeler(self, name: str) -> Labeler | None:
        """The labeler that makes the modality `name`; None where it has no tiny weights."""
        labeler_class = find_labeler(name)
        if labeler_class not in self._labelers:
            self._labelers[labeler_class] = self._made(labeler_class)
        return self._labelers[labeler_class]

    def compare(self, labeler: Labeler, samples: Sequence[Sample], dtype: torch.dtype) -> dict[str, Error]:
        """For every modality that the labeler makes, the mean error over the samples."""
        required = {name: self._required(labeler, name, samples) for name in labeler.requires}
        kept = [i for i in range(len(samples)) if all(labels[i] is not None for labels in required.values())]
        samples = [samples[i] for i in kept]
        batch = batch_for(labeler, samples, {name: [labels[i] for i in kept] for name, labels in required.items()})
        exact = self._label(labeler, batch, None)
        rounded = self._label(labeler, batch, dtype)
        return errors_of(labeler.makes, exact, rounded)

    def _made(self, labeler_class: type[Labeler]) -> Labeler | None:
        weights = None
        if labeler_class.weights is not None:
            folder = self._folder / labeler_class.__name__
            folder.mkdir()
            try:
                real = labeler_class is find_labeler("dinov2")
                weights = str(dinov2_small(folder / "small") if real else labeler_class.write_tiny(folder))
            except NotImplementedError:
                return None
        labeler = labeler_class(weights=weights)
        labeler.load(self._device)
        return labeler

    def _required(self, labeler: Labeler, name: str, samples: Sequence[Sample]) -> list[Any]:
        """The labels `name` of the samples as `labeler` is given them."""
        maker = self.labeler(name)
        if maker is None:
            raise SystemExit(f"{name}, which {type(labeler).__name__} requires, has no tiny weights")
        own = {needed: self._required(maker, needed, samples) for needed in maker.requires}
        labels = list(self._label(maker, batch_for(maker, samples, own), None)[name])
        if maker.on != "image" or labeler.on != "view":
            return labels
        kind = next(modality.kind for modality in maker.makes if modality.name == name)
        pairs = zip(labels, samples, strict=True)
        return [None if label is None else kind.crop(label, sample.view) for label, sample in pairs]

    def _label(self, labeler: Labeler, batch: Batch, dtype: torch.dtype | None) -> Mapping[str, Sequence[Any]]:
        with torch.inference_mode(), torch.autocast(self._device, dtype=dtype) if dtype else nullcontext():
            return labeler.label(batch)


def photographs(folder: Path, count: int) -> list[Sample]:
    """So many photographs of 500 x 375 pixels, with captions."""
    (path,) = write_tars(folder / "photographs", 1, per_tar=count)
    samples = []
    with tarfile.open(path) as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    for name in sorted(content):
        key, _, extension = name.rpartition(".")
        if extension == "jpg":
            image = np.array(Picture.open(BytesIO(content[name])))
            view = cut_view(0, key, 0, image.shape[0], image.shape[1], ViewSettings())
            samples.append(Sample(key, image, view, {"caption": content[f"{key}.txt"].decode()}))
    return samples


def batch_for(labeler: Labeler, samples: Sequence[Sample], labels: Mapping[str, Sequence[Any]]) -> Batch:
    """The samples as the labeler looks at them. A captioner is shown them without their captions."""
    images: Any = None
    if labeler.on == "view":
        images = np.stack([crops.crop_map(sample.image, sample.view, nearest=False) for sample in samples])
    elif labeler.on == "image":
        images = [sample.image for sample in samples]
    fields = [{} if labeler.on == "image" else sample.fields for sample in samples]
    return Batch([sample.key for sample in samples], images, [sample.view for sample in samples], fields, labels)


def errors_of(
    makes: Sequence[Modality], exact: Mapping[str, Sequence[Any]], rounded: Mapping[str, Sequence[Any]]
) -> dict[str, Error]:
    """For each modality the mean error over the labels that are there on both sides."""
    return {
        modality.name: mean_error(
            [
                error_of(modality.kind, modality.kind.check(one), modality.kind.check(other))
                for one, other in zip(exact[modality.name], rounded[modality.name], strict=True)
                if one is not None and other is not None
            ]
        )
        for modality in makes
    }


def error_of(kind: Kind, exact: Any, rounded: Any) -> Error:
    """How one label differs."""
    if isinstance(exact, str):
        return Error(changed=1 - SequenceMatcher(None, exact, rounded, autojunk=False).ratio())
    if isinstance(exact, InstanceSet):
        return instances_error(exact, rounded)
    if isinstance(kind, Image) and kind.content == "classes":
        return Error(changed=float((exact != rounded).mean()))
    if isinstance(exact, np.ndarray):
        return numbers_error(exact, rounded)
    raise TypeError(f"labels of the kind {kind.name} can't be compared")


def numbers_error(exact: np.ndarray, rounded: np.ndarray) -> Error:
    apart = np.abs(exact.astype(np.float64) - rounded)
    spread = max(float(exact.astype(np.float64).std()), 1e-12)
    return Error(mean=float(apart.mean()) / spread, largest=float(apart.max()) / spread)


def instances_error(exact: InstanceSet, rounded: InstanceSet) -> Error:
    """Instances are paired from the highest IoU of their boxes down; attributes of pairs are compared as numbers."""
    if not len(exact) and not len(rounded):
        return Error(changed=0.0)
    overlaps = _overlaps(exact.boxes, rounded.boxes)
    overlaps[np.array(exact.labels, object)[:, None] != np.array(rounded.labels, object)[None]] = 0
    pairs: list[tuple[int, int]] = []
    while overlaps.size and overlaps.max() >= 0.9:
        one, other = np.unravel_index(overlaps.argmax(), overlaps.shape)
        pairs.append((int(one), int(other)))
        overlaps[one], overlaps[:, other] = 0, 0
    changed = 1 - 2 * len(pairs) / (len(exact) + len(rounded))
    ours, theirs = exact.take([one for one, _ in pairs]), rounded.take([other for _, other in pairs])
    errors = [
        numbers_error(ours.attributes[name], theirs.attributes[name])
        for name in ours.attributes
        if ours.attributes[name].size
    ]
    return replace(mean_error(errors), changed=changed)


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of every box of (N, 4) with every other of (M, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = (high - low).clip(0).prod(axis=2)
    areas, other_areas = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, others))
    return common / np.maximum(areas[:, None] + other_areas[None] - common, 1e-12)


def mean_error(errors: Sequence[Error]) -> Error:
    """Mean of each figure over the errors that have it."""

    def mean(figures: list[float | None]) -> float | None:
        known = [figure for figure in figures if figure is not None]
        return sum(known) / len(known) if known else None

    return Error(
        mean([error.mean for error in errors]),
        mean([error.largest for error in errors]),
        mean([error.changed for error in errors]),
        len(errors),
    )


def _percent(figure: float | None) -> str:
    return f"{'-' if figure is None else f'{figure:.2%}':>8}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_IMAGES} photographs")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", type=lambda names: names.split(","), help="labelers or modalities, with commas")
    return parser.parse_args()


if __name__ == "__main__":
    main()
