"""A labeler that takes its time and no CPU, as one does that waits for a GPU."""

from __future__ import annotations

import time

import numpy as np
from tokenloom import Batch, Labeler, Modality, Vector

SECONDS = 0.125
"""For each image."""


class Sleeping(Labeler):
    """Nothing, slowly."""

    makes = (Modality("sleeping", Vector(1)),)

    def label(self, batch: Batch):
        count = len(np.asarray(batch.images))
        time.sleep(SECONDS * count)
        return {"sleeping": list(np.zeros((count, 1), np.float32))}
