"""A labeler that takes its time and notes where it did, on clusters whose nodes come and go."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenloom import Batch, Labeler, Modality, Vector

NOTES = "TOKENLOOM_TEST_NOTES"
"""Names the folder of the notes in the environment of nodes."""

SLOW = "slow"
"""A file in that folder, while which is there a batch takes its time."""

SECONDS = 0.5


@dataclass(frozen=True)
class Note:
    """A batch that was labelled. node: Ray's id. began, ended: seconds of the machine's clock."""

    node: str
    began: float
    ended: float
    key: str


def notes(folder: Path) -> list[Note]:
    lines = [line.split(maxsplit=3) for path in folder.glob("*.txt") for line in path.read_text().splitlines()]
    return sorted(
        (Note(node, float(began), float(ended), key) for node, began, ended, key in lines), key=lambda n: n.began
    )


class Placed(Labeler):
    """The view's mean colour."""

    makes = (Modality("placed", Vector(3)),)

    def label(self, batch: Batch):
        if folder := os.environ.get(NOTES):
            self._note(Path(folder), batch.keys[0])
        return {"placed": [image.mean((0, 1), dtype=np.float32) / 255 for image in np.asarray(batch.images)]}

    def _note(self, folder: Path, key: str) -> None:
        import ray

        began = time.time()
        time.sleep(SECONDS if (folder / SLOW).exists() else 0)
        with (folder / f"{os.getpid()}.txt").open("a") as file:
            print(ray.get_runtime_context().get_node_id(), began, time.time(), key, file=file)
