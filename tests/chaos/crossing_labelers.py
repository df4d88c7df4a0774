"""Labelers that look at every image and compute next to nothing, for stages of their own."""

from __future__ import annotations

import time

import numpy as np
from tokenloom import Batch, Labeler, Modality, Vector

_SECONDS = 0.01


class First(Labeler):
    """The view's mean colour."""

    makes = (Modality("first", Vector(3)),)

    def label(self, batch: Batch):
        time.sleep(_SECONDS * len(batch))
        return {self.makes[0].name: [image.mean((0, 1), dtype=np.float32) / 255 for image in np.asarray(batch.images)]}


class Second(First):
    """The same, by another name."""

    makes = (Modality("second", Vector(3)),)


class Third(First):
    """The same, by another name."""

    makes = (Modality("third", Vector(3)),)
