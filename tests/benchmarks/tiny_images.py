"""Runs of very many, very small images: what is measured of them is what the engine does."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

PER_TAR = 2000


def write_corpus(folder: Path, images: int) -> None:
    """Tars of JPEGs, of which there are five."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
    jpegs = [_jpeg(one) for one in pixels]
    for start in range(0, images, PER_TAR):
        with tarfile.open(folder / f"{start // PER_TAR:05d}.tar", "w") as tar:
            for number in range(start, min(start + PER_TAR, images)):
                data = jpegs[number % len(jpegs)]
                info = tarfile.TarInfo(f"{number:08d}.jpg")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def _jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg")
    return file.getvalue()


def run(
    folder: Path,
    modalities: Mapping[str, str],
    samples: int,
    labelled: Callable[[int], None],
    workers: int | None = None,
) -> None:
    """Has labels made of the folder's corpus, with this process as the driver. modalities: by name, their labelers.
    samples: of a unit. labelled: is told after each unit how many are done."""
    from tokenloom.pipeline.engine.tally import Tally
    from tokenloom.pipeline.plan.plan import make_plan
    from tokenloom.pipeline.plan.recipe import parse_recipe
    from tokenloom.pipeline.run import RunListener, execute

    class Listener(RunListener):
        def labelled(self, tally: Tally) -> None:
            labelled(tally.units)

    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent)  # of Ray's workers: the labelers lie there
    recipe = {
        "corpus": str(folder / "corpus"),
        "output": str(folder / "output"),
        "units": {"samples": samples},
        "resources": {"workers": workers},
        "modalities": {name: {"labeler": labeler, "keep": "labels"} for name, labeler in modalities.items()},
    }
    execute(make_plan(parse_recipe(recipe)), listener=Listener())
