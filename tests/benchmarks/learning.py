"""Do tiny tokenizers learn on two cores? Reconstruction of held-out photographs beside k-means at the same bit rate.

    python tests/benchmarks/learning.py [--quick] [--only rgb ...] [--families] [--fold 1] [--threads 1]
        [--corpus photographs --steps 2500]

Without --corpus on the 22 photographs of `tokenloom demo`; real_photographs.py writes a corpus of 333. About a fifth of
the photographs is held out; those whose names differ in a number or in left and right alone stay on one side. Of every
photograph there are several random views, labelled by the project's labelers:

- rgb, canny_edge: 64 x 64 pixels.
- dinov2: 8 x 8 features of 384 numbers, by the demo's DINOv2 ViT-S/14 on views of 112 x 112 pixels.
- foreground: masks of the objects that TokenCut finds in those features, at 64 x 64 pixels in their boxes.

Both tokenizers are fitted to the same labels, give as many tokens of as many codes, and are measured on the labels of
the held-out photographs: the network after `train`, and k-means (of patches of pixels or of masks, of
features by direction). `error` is the mean squared error of pixels (0..255), 1 - cosine of features, 1 - IoU of
masks.

Quantisers, views and steps were chosen by the ratios on the photographs that fold 0 of the demo holds out (how codes
follow, by those of the 333 for edges), one seed each; the other folds took no part in that. The 22 photographs are few:
more than these steps learns them by heart.

--families compares the quantisers instead, each as modality/quantiser.

The last line is a JSON object with the figures of each modality or quantiser; `ratio` is the error of k-means by the
network's, above 1 where the network is better, and at the top the smallest of them. usage, perplexity: of the codes
among the tokens of all labels that were learnt from. seconds, cpu_seconds: of the training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from real_photographs import photographs
from tokenloom.labelers.canny_edge import CannyEdge
from tokenloom.labelers.contract.images import decode_view, read_header
from tokenloom.labelers.contract.instances import InstanceSet
from tokenloom.labelers.contract.kinds import Image, Kind
from tokenloom.labelers.contract.labeler import Batch, Labeler
from tokenloom.labelers.contract.views import ViewSettings, cut_view
from tokenloom.labelers.dinov2 import Dinov2, Dinov2Params
from tokenloom.labelers.foreground import Foreground
from tokenloom.labelers.rgb import Rgb
from tokenloom.pipeline.commands.demo import write_corpus
from tokenloom.pipeline.commands.demo_weights import dinov2_small
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.codebooks.codebook import Codebook, CodebookParams, PatchCodebook, PatchParams
from tokenloom.tokenizers.codebooks.kmeans import kmeans
from tokenloom.tokenizers.contract.tokenizer import Tokenizer
from tokenloom.tokenizers.contract.vocabulary import Vocabulary
from tokenloom.tokenizers.fitting.figures import Figures
from tokenloom.tokenizers.fitting.settings import FitSettings
from tokenloom.tokenizers.instances.instance_text import InstancesParams
from tokenloom.tokenizers.instances.instances import InstancesTokenizer, InstancesVQParams, InstancesVQTokenizer
from tokenloom.tokenizers.instances.mask_codes import square_patches
from tokenloom.tokenizers.measures.code_usage import Usage, usage_of
from tokenloom.tokenizers.measures.reconstruction import ErrorSum
from tokenloom.tokenizers.vq.base import TrainedTokenizer
from tokenloom.tokenizers.vq.vq import VQParams, VQTokenizer

PIXELS, FEATURES = 64, 112
CODES = 256
VIEWS_EACH = 20
"""Views of a photograph at least."""

MIN_SCALE = 0.1
HELD_OUT = 0.2
SEED = 0
_BATCH = 16
_REPORTS = 10


@dataclass(frozen=True)
class Task:
    """What is learnt of a modality.

    size: of the views, in pixels. views: to be trained on, of all photographs together; more where these are many.
    network, kmeans: tokenizers to be fitted. batch_size, steps, learning_rate: of the network's training.
    """

    size: int
    views: int
    network: Callable[[Kind], TrainedTokenizer]
    kmeans: Callable[[Kind], Tokenizer]
    batch_size: int
    steps: int = 800
    learning_rate: float = 5e-3


def _vq(kind: Kind, **params: Any) -> TrainedTokenizer:
    common = {"encoder": "vit_xt_enc", "decoder": "vit_xt_dec", "codes": CODES, "latent": 16, "quantizer": "euclidean"}
    return VQTokenizer(kind, VQParams.model_validate({**common, **params}))


def _instances_vq(kind: Kind) -> TrainedTokenizer:
    params = InstancesVQParams(encoder="vit_xt_enc", decoder="vit_xt_dec", codes=CODES, frame=FEATURES)
    return InstancesVQTokenizer(kind, params)


class MaskPatches(InstancesTokenizer):
    """`instances` with as many patches as CODES."""

    def fit(self, labels: Iterable[InstanceSet], seed: int) -> None:
        patches = square_patches(np.concatenate([self._mask_squares(label) for label in labels]))
        self._patches = kmeans(patches, CODES, seed).centroids
        self.facts = {"codes": len(self._patches)}


TASKS = {
    "rgb": Task(
        PIXELS,
        2400,
        partial(_vq, patch_size=8),
        lambda kind: PatchCodebook(kind, PatchParams(size=CODES, patch_size=8)),
        batch_size=32,
    ),
    "canny_edge": Task(
        PIXELS,
        9600,
        partial(_vq, patch_size=4, objective="mse"),
        lambda kind: PatchCodebook(kind, PatchParams(size=CODES, patch_size=4)),
        batch_size=16,
        steps=1600,
    ),
    "dinov2": Task(
        FEATURES,
        3200,
        partial(_vq, objective="mse"),
        lambda kind: Codebook(kind, CodebookParams(size=CODES)),
        batch_size=32,
    ),
    "foreground": Task(
        FEATURES,
        3200,
        _instances_vq,
        lambda kind: MaskPatches(kind, InstancesParams(frame=FEATURES)),
        batch_size=64,
    ),
}


FAMILIES: dict[str, dict[str, Any]] = {
    "cosine": {"quantizer": "cosine"},
    "euclidean": {"quantizer": "euclidean"},
    "fsq": {"quantizer": "fsq"},
    "residual": {"quantizer": "residual", "tokens": 2, "codes": 16},
    "memcodes": {"quantizer": "memcodes", "tokens": 2, "codes": 16},
}
"""Quantisers with 8 bits a cell; fsq's 8 x 6 x 5 levels make 240 codes, a little less."""


@dataclass
class Views:
    """Labels of views by modality, with the kinds that they are of."""

    kinds: dict[str, Kind] = field(default_factory=dict)
    labels: dict[str, list[Any]] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the views and of the steps")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), metavar="MODALITY")
    parser.add_argument("--families", action="store_true", help="compare quantisers, on any modality but foreground")
    parser.add_argument("--corpus", type=Path, help="folder of photographs; without it those of the demo")
    parser.add_argument("--steps", type=int, help="of training, in place of each modality's own")
    parser.add_argument("--fold", type=int, choices=range(5), default=0, help="which fifth is held out")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    options = parser.parse_args()
    if options.families and "foreground" in options.only:
        parser.error("--families is for rgb, canny_edge and dinov2: name some of them with --only")
    import torch

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        corpus = options.corpus or Path(folder) / "photographs"
        if options.corpus is None:
            write_corpus(Store(corpus))
        known = {name: replace(task, steps=options.steps or task.steps) for name, task in TASKS.items()}
        tasks = {
            name: families(name, known[name]) if options.families else {name: known[name]} for name in options.only
        }
        print(json.dumps(benchmark(corpus, Path(folder), tasks, 0.1 if options.quick else 1.0, options.fold)))


def families(modality: str, task: Task) -> dict[str, Task]:
    """The task for each quantiser, as modality/quantiser."""
    return {
        f"{modality}/{name}": replace(task, network=partial(task.network, **params))
        for name, params in FAMILIES.items()
    }


def benchmark(
    corpus: Path, scratch: Path, tasks: Mapping[str, Mapping[str, Task]], share: float, fold: int = 0
) -> dict[str, Any]:
    """tasks: by modality, each under a name of its own; those of a modality share labels and k-means. share: of the
    views and of the steps. fold: which photographs are held out."""
    training, held_out = part(photographs(corpus), fold)
    _say(f"{len(training)} photographs to learn from, {len(held_out)} held out")
    figures: dict[str, Any] = {"photographs": len(training), "held_out": len(held_out)}
    sizes = {modality: next(iter(some.values())).size for modality, some in tasks.items()}
    for size in sorted(set(sizes.values())):
        modalities = [modality for modality in tasks if sizes[modality] == size]
        labelers = _pixel_labelers() if size == PIXELS else _feature_labelers(scratch)
        views = max(task.views for modality in modalities for task in tasks[modality].values()) * share
        views = max(views, VIEWS_EACH * share * len(training))
        seen = label(training, math.ceil(views / len(training)), size, labelers)
        unseen = label(held_out, math.ceil(views / 5 / len(held_out)), size, labelers)
        for modality in modalities:
            labels = seen.labels[modality], unseen.labels[modality]
            figures |= compare(tasks[modality], seen.kinds[modality], *labels, share)
    return {**figures, "ratio": min(figures[name]["ratio"] for some in tasks.values() for name in some)}


def part(paths: Sequence[Path], fold: int = 0) -> tuple[list[Path], list[Path]]:
    """Photographs to learn from and those held out, by a hash of their series' names; others in each of 5 folds."""
    series: dict[str, list[Path]] = {}
    for path in paths:
        series.setdefault(series_of(path.stem), []).append(path)
    held_out: list[Path] = []
    names = sorted(series, key=lambda name: hashlib.sha256(name.encode()).digest())
    first = round(fold * HELD_OUT * len(names))
    for name in names[first:] + names[:first]:
        if len(held_out) < HELD_OUT * len(paths):
            held_out += series[name]
    return [path for path in paths if path not in set(held_out)], sorted(held_out)


def series_of(stem: str) -> str:
    """`windmill` of "renewable-windmill12", `motorcycle` of "motorcycle_left"."""
    name = stem.lower().rpartition("-")[2]
    return re.sub(r"(_left|_right|\d+)$", "", name) or name


def label(paths: Sequence[Path], count: int, size: int, labelers: Sequence[Labeler]) -> Views:
    """Labels of `count` random views of each photograph; each labeler may use those before it."""
    found = Views({modality.name: modality.kind for labeler in labelers for modality in labeler.makes})
    found.labels = {name: [] for name in found.kinds}
    settings = ViewSettings(size, count + 1, MIN_SCALE)
    for path in paths:
        data = path.read_bytes()
        header = read_header(data)
        views = [cut_view(SEED, path.stem, at, header.height, header.width, settings) for at in range(1, count + 1)]
        for start in range(0, count, _BATCH):
            some = views[start : start + _BATCH]
            images, labels = np.stack([decode_view(data, view) for view in some]), {}
            for labeler in labelers:
                labels |= labeler.label(Batch([path.stem] * len(some), images, some, [{}] * len(some), labels))
            for name, values in labels.items():
                found.labels[name] += values
    return found


def _pixel_labelers() -> list[Labeler]:
    return [Rgb(), CannyEdge()]


def _feature_labelers(folder: Path) -> list[Labeler]:
    labelers = [Dinov2(Dinov2Params(size=FEATURES), weights=str(dinov2_small(folder / "dinov2-small"))), Foreground()]
    for labeler in labelers:
        labeler.load("cpu")
    return labelers


def compare(
    tasks: Mapping[str, Task], kind: Kind, seen: Sequence[Any], unseen: Sequence[Any], share: float
) -> dict[str, Any]:
    """Fits k-means and the network of each task to the labels `seen`, and measures them on the `unseen`."""
    kmeans = next(iter(tasks.values())).kmeans(kind)
    _give_vocabulary(kmeans)
    kmeans.fit(seen, SEED)
    theirs = measure(kmeans, unseen)
    figures: dict[str, Any] = {}
    for name, task in tasks.items():
        network, seconds, cpu_seconds = _train(name, task, kind, seen, share)
        ours, usage, config = measure(network, unseen), _usage(network, seen), network.network.config
        figures[name] = {
            "labels": len(seen),
            "held_out_labels": len(unseen),
            "tokens": [config.tokens_per_cell, *config.grid(network.contract.height, network.contract.width)],
            "codes": config.vocabulary,
            "kmeans_codes": _codes(kmeans),
            "network": ours,
            "kmeans": theirs,
            "ratio": round(theirs["error"] / ours["error"], 3),
            "usage": round(usage.share, 3),
            "perplexity": round(usage.perplexity, 1),
            "steps": network.facts["steps"],
            "seconds": round(seconds),
            "cpu_seconds": round(cpu_seconds),
        }
        _say(f"{name}: {json.dumps(figures[name])}")
    return figures


def _train(
    name: str, task: Task, kind: Kind, seen: Sequence[Any], share: float
) -> tuple[TrainedTokenizer, float, float]:
    """The tokenizer with its trained network, and the seconds of wall clock and CPU that it took."""
    from tokenloom.tokenizers.vq.base import train

    steps = math.ceil(task.steps * share)
    tokenizer = task.network(kind)
    _give_vocabulary(tokenizer)
    tokenizer.settings = FitSettings(
        steps=steps, batch_size=task.batch_size, learning_rate=task.learning_rate, ema=0.99
    )
    examples = np.concatenate([tokenizer.examples(label) for label in seen])
    _say(f"{name}: {steps} steps on {len(examples)} examples")

    def report(figures: Figures) -> None:
        if figures.step % math.ceil(steps / _REPORTS) == 0:
            _say(f"  step {figures.step}: loss {figures.loss:.4f}, usage {figures.usage:.1%}, {figures.perplexity:.0f}")

    began, cpu_began = time.perf_counter(), time.process_time()
    train(tokenizer, examples, SEED, report)
    return tokenizer, time.perf_counter() - began, time.process_time() - cpu_began


def measure(tokenizer: Tokenizer, labels: Sequence[Any]) -> dict[str, float]:
    """`error` (see above), and the figures of `reconstruction.errors`, means over the labels."""
    errors, total = ErrorSum(tokenizer.kind), []
    for start in range(0, len(labels), _BATCH):
        some = labels[start : start + _BATCH]
        for one, decoded in zip(some, tokenizer.decode(tokenizer.encode(some)), strict=True):
            found = errors.add(one, decoded)
            if isinstance(tokenizer.kind, Image):
                total.append(float(np.square(decoded.astype(np.float64) - one).mean()))
            else:
                total += [1 - found[name] for name in ("cosine", "mask_iou") if name in found]
    return {"error": float(np.mean(total)), **{name: round(value, 4) for name, value in errors.means().items()}}


def _usage(tokenizer: TrainedTokenizer, labels: Sequence[Any]) -> Usage:
    """Of the codes; the mean over the codebooks where a cell has several tokens."""
    network = tokenizer.network
    counts = np.zeros((network.config.tokens_per_cell, network.config.vocabulary), np.int64)
    for label in labels:
        if len(examples := tokenizer.examples(label)):
            tokens = network.tokenize(tokenizer.to_batch(examples)).reshape(len(examples), len(counts), -1)
            for codebook, ids in zip(counts, tokens.transpose(0, 1).flatten(1).numpy(), strict=True):
                codebook += np.bincount(ids, minlength=len(codebook))
    return usage_of(counts)


def _codes(kmeans: Tokenizer) -> int:
    facts: Mapping[str, Any] = getattr(kmeans, "facts", {})
    return facts["codes"]


def _give_vocabulary(tokenizer: Tokenizer) -> None:
    if tokenizer.uses_vocabulary:
        tokenizer.use_vocabulary(Vocabulary.train(["object"]))


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
