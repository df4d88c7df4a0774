"""What a training leaves behind of each step: lines of JSON, and the same for TensorBoard.

    metrics/STEP.jsonl                          a line for each step behind STEP, up to the next file's
    tensorboard/events.out.tfevents.STEP        the same

A file begins at each checkpoint, and is written anew as its lines come. Who goes on from a checkpoint drops what lies
behind it, so that each step has one line.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...pipeline.storage.store import Store
from .figures import Figures

_LINES, _EVENTS = "metrics", "tensorboard"
_EVERY = 10.0
"""Seconds after which lines are written, be there a checkpoint or not."""


class Metrics:
    """Of the training whose output is `store`, going on from `step`. Only one process may use it."""

    def __init__(self, store: Store, step: int) -> None:
        self._store, self._begin = store, step
        self._lines: list[dict[str, Any]] = []
        self._written = time.monotonic()
        for folder in (_LINES, _EVENTS):
            for entry in store.list(folder):
                if (begin := _begin(entry.name)) is not None and begin >= step:
                    store.delete(f"{folder}/{entry.name}")

    def add(self, figures: Figures) -> None:
        self._lines.append({**figures.to_json(), "time": round(time.time(), 3)})
        if time.monotonic() - self._written > _EVERY:
            self._write()

    def cut(self) -> None:
        """Writes what there is; what comes then goes into a file of its own. Call it before each checkpoint."""
        if self._lines:
            self._write()
            self._begin, self._lines = self._lines[-1]["step"], []

    def _write(self) -> None:
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in self._lines)
        self._store.replace(f"{_LINES}/{self._begin:08d}.jsonl", text.encode())
        self._store.replace(f"{_EVENTS}/events.out.tfevents.{self._begin:08d}", as_events(self._lines))
        self._written = time.monotonic()


def as_events(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """The lines' numbers as a file of TensorBoard's: `loss`, `losses/depth`, ..."""
    from tensorboardX import SummaryWriter

    with tempfile.TemporaryDirectory(prefix="tokenloom-events-") as folder:
        with SummaryWriter(folder) as writer:
            for line in lines:
                flat = {**line, **{f"losses/{name}": value for name, value in line["losses"].items()}}
                for name in flat.keys() - {"step", "time"}:
                    if isinstance(flat[name], int | float):
                        writer.add_scalar(name, flat[name], line["step"], walltime=line["time"])
        (file,) = Path(folder).iterdir()
        return file.read_bytes()


def _begin(name: str) -> int | None:
    digits = name.removesuffix(".jsonl").rpartition(".")[2]
    return int(digits) if digits.isdigit() else None
