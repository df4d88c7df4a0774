"""What fitting k-means codebooks costs, and how well they serve photographs that they weren't fitted to.

    python tests/benchmarks/fits.py [--quick] [--corpus photographs] [--only rgb ...]

Without --corpus on the 22 photographs of `tokenloom demo`; real_photographs.py writes a corpus of 333. About a fifth of
the photographs is held out. Views of 224 x 224 pixels are labelled by the project's labelers: rgb and canny_edge in
patches of 16 x 16 pixels, features of DINOv2 ViT-S/14. For each modality in turn 8,192 codes are fitted to the same
vectors, as `tokenloom run` takes them, by

- whole: Lloyd's algorithm on all vectors as they are, 10 iterations;
- ours: `kmeans`, on principal components and a part of the vectors.

error: the mean squared distance of held-out vectors to the nearest code. cpu: seconds, on as many threads as
OMP_NUM_THREADS says. The last line is a JSON object; `ratio` is all of whole's CPU seconds by all of ours, `error` the
largest of our errors by whole's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from learning import label, part
from real_photographs import photographs
from tokenloom.labelers.canny_edge import CannyEdge
from tokenloom.labelers.contract.labeler import Labeler
from tokenloom.labelers.dinov2 import Dinov2
from tokenloom.labelers.rgb import Rgb
from tokenloom.pipeline.commands.demo import write_corpus
from tokenloom.pipeline.commands.demo_weights import dinov2_small
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.codebooks.codebook import CodebookParams, supported_codes
from tokenloom.tokenizers.codebooks.kmeans import kmeans, lloyd, nearest, normalise, sample_rows, squared_distances

SIDE, PATCH = 224, 16
MODALITIES = ("rgb", "canny_edge", "dinov2")
_TRIED = 8192
"""Held-out vectors."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a sixteenth of the vectors")
    parser.add_argument("--corpus", type=Path, help="folder of photographs; without it those of the demo")
    parser.add_argument("--only", nargs="+", choices=MODALITIES, default=MODALITIES, metavar="MODALITY")
    options = parser.parse_args()
    sample = CodebookParams().sample // (16 if options.quick else 1)
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        corpus = options.corpus or Path(folder) / "photographs"
        if options.corpus is None:
            write_corpus(Store(corpus))
        figures = {name: compare(name, corpus, Path(folder), sample) for name in options.only}
    costs = {way: sum(found[way]["cpu"] for found in figures.values()) for way in ("whole", "ours")}
    worst = max(found["ours"]["error"] / found["whole"]["error"] for found in figures.values())
    print(json.dumps({**figures, "error": round(worst, 4), "ratio": round(costs["whole"] / costs["ours"], 2)}))


def compare(name: str, corpus: Path, scratch: Path, sample: int) -> dict[str, Any]:
    """The figures of both ways for one modality, and what they were measured on."""
    seen, unseen = part(photographs(corpus))
    labeler = labeler_of(name, scratch)
    points = sample_rows((vectors(one) for one in labels_of(name, seen, labeler, sample)), sample, 0)
    others = sample_rows((vectors(one) for one in labels_of(name, unseen, labeler, 4 * _TRIED)), _TRIED, 0)
    codes, spherical = supported_codes(CodebookParams().size, len(points)), name == "dinov2"
    if spherical:
        points, others = normalise(points), normalise(others)
    else:
        others = others - points.mean(axis=0)
        points = points - points.mean(axis=0)

    def whole() -> np.ndarray:
        generator = np.random.Generator(np.random.PCG64(0))
        return lloyd(points, codes, generator, 10, spherical).centroids

    def ours() -> np.ndarray:
        return kmeans(points, codes, 0, CodebookParams().iterations, spherical).centroids

    figures: dict[str, Any] = {"vectors": points.shape, "codes": codes}
    for way in (whole, ours):
        figures[way.__name__] = _measured(way, others)
        print(f"{name}, {way.__name__}: {figures[way.__name__]}", flush=True)
    return figures


def labeler_of(name: str, scratch: Path) -> Labeler:
    if name != "dinov2":
        return {"rgb": Rgb, "canny_edge": CannyEdge}[name]()
    labeler = Dinov2(weights=str(dinov2_small(scratch / "dinov2-small")))
    labeler.load("cpu")
    return labeler


def labels_of(name: str, paths: Sequence[Path], labeler: Labeler, wanted: int) -> list[np.ndarray]:
    """Labels of as many views of each photograph as it takes for so many vectors, twice at most."""
    views = min(2, max(1, round(wanted / (len(paths) * (SIDE // PATCH) ** 2))))
    return label(paths, views, SIDE, [labeler]).labels[name]


def vectors(one: np.ndarray) -> np.ndarray:
    """float32 (n, numbers): cells of a feature map (float16), or patches of an image (uint8) in 0..1."""
    if one.dtype == np.float16:
        return one.reshape(len(one), -1).T.astype(np.float32)
    rows = SIDE // PATCH
    patches = one.reshape(rows, PATCH, rows, PATCH, -1).transpose(0, 2, 1, 3, 4)
    return patches.reshape(rows * rows, -1).astype(np.float32) / 255


def _measured(fit: Callable[[], np.ndarray], others: np.ndarray) -> dict[str, float]:
    began = time.process_time()
    codes = fit()
    seconds = time.process_time() - began
    error = squared_distances(others, codes, nearest(others, codes)).mean()
    return {"cpu": round(seconds, 2), "error": round(float(error), 6)}


if __name__ == "__main__":
    main()
