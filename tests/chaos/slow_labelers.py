"""Labelers that take their time, so that what befalls a run finds it at work; one of them loses memory besides."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
from tokenloom import Batch, Labeler, Modality, Resources, Vector

LEAK = "TOKENLOOM_CHAOS_LEAK"
"""Names so many MiB in the environment of nodes."""

HOLD = "TOKENLOOM_CHAOS_HOLD"
"""Names a file there: while it is there, nobody goes on once HELD_AT shards lie in the folder that it names."""

HELD_AT = 3

_SECONDS = 0.05


class Colour(Labeler):
    """The view's mean colour."""

    makes = (Modality("colour", Vector(3)),)

    def label(self, batch: Batch):
        while _is_held():
            time.sleep(0.1)
        time.sleep(_SECONDS * len(batch))
        return {"colour": [image.mean((0, 1), dtype=np.float32) / 255 for image in np.asarray(batch.images)]}


class Spread(Colour):
    """How the view's colours differ; asks for a share of a GPU."""

    makes = (Modality("spread", Vector(3)),)
    resources = Resources(gpus=0.5)

    def label(self, batch: Batch):
        time.sleep(_SECONDS * len(batch))
        return {"spread": [image.std((0, 1), dtype=np.float32) / 255 for image in np.asarray(batch.images)]}


class Contrast(Labeler):
    """The one by the other, without a look at the image."""

    makes = (Modality("contrast", Vector(3)),)
    on = "nothing"
    requires = ("colour", "spread")

    def label(self, batch: Batch):
        pairs = zip(batch.labels["spread"], batch.labels["colour"], strict=True)
        return {"contrast": [spread / (colour + 1) for spread, colour in pairs]}


class Leaky(Colour):
    """Keeps some memory of every sample, until its process is killed for it."""

    makes = (Modality("leaky", Vector(3)),)

    def load(self, device: str) -> None:
        self._lost: list[bytes] = []

    def label(self, batch: Batch):
        self._lost += [os.urandom(1) * (int(os.environ.get(LEAK, "0")) * 2**20) for _ in batch.keys]
        return {"leaky": super().label(batch)["colour"]}


def _is_held() -> bool:
    hold = Path(os.environ.get(HOLD, ""))
    return hold.is_file() and shards(Path(hold.read_text())) >= HELD_AT


def shards(folder: Path) -> int:
    """How many lie in it."""
    return sum(path.suffix in (".tar", ".parquet") for path in folder.rglob("*"))
