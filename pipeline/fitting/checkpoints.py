"""Checkpoints of a fit below a prefix of a store, each complete or absent, and the lines of metrics beside them.

    checkpoints/JOB-STEP-000.safetensors, JOB-STEP-001.safetensors, ...
    checkpoints/JOB-STEP.json
    metrics.jsonl

A checkpoint counts once its JSON is there, which names its parts. Lines of metrics that are ahead of the checkpoint
from which a fit goes on are dropped and made again, so that each step has one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..storage.store import Store

if TYPE_CHECKING:
    from torch import Tensor

METRICS = "metrics.jsonl"
_FOLDER = "checkpoints"
_KEPT = 2
_PART = 2**30
"""Bytes of tensors in one object, unless a single one is larger; so many are in memory twice while it is written."""


class Checkpoints:
    """Of the fit whose digest is `job`. Only one process of a fit may use it."""

    def __init__(self, store: Store, prefix: str, job: str) -> None:
        self._store, self._prefix, self._job = store, prefix, job
        self._lines: list[dict[str, Any]] = []

    def remove_others(self) -> bool:
        """Removes what another fit has left here, its metrics too, and unfinished checkpoints of this one; whether
        there was another fit."""
        complete, names = self._complete(), self._names()
        foreign = [name for name in names if not name.startswith(f"{self._job}-")]
        halves = [name for name in names if name not in foreign and _stem(name) not in complete]
        self._delete(foreign + halves)
        if foreign:
            self._store.delete(f"{self._prefix}/{METRICS}")
        return bool(foreign)

    def latest(self) -> dict[str, Tensor] | None:
        """The newest checkpoint; None where there is none. Raises ValueError for one whose bytes were damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        complete = self._complete()
        self._lines = self._metrics_until(_step(complete[-1])) if complete else []
        if not complete:
            return None
        parts = json.loads(self._store.read(self._path(f"{complete[-1]}.json")))["parts"]
        state: dict[str, Tensor] = {}
        for part in parts:
            try:
                state |= load(self._store.read(self._path(part)))
            except SafetensorError as error:
                raise ValueError(
                    f"{self._store.url}/{self._path(part)}: the checkpoint is damaged ({error}); delete "
                    f"{complete[-1]}.json beside it, and the fit goes on from the one before"
                ) from None
        return state

    def save(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Writes and publishes a checkpoint, and then removes all but the last two."""
        from safetensors.torch import save

        self.write_metrics()
        stem, parts = f"{self._job}-{step:08d}", []
        for number, part in enumerate(_parts(state)):
            parts.append(f"{stem}-{number:03d}.safetensors")
            self._store.replace(self._path(parts[-1]), save(part))
        self._store.replace(self._path(f"{stem}.json"), json.dumps({"step": step, "parts": parts}).encode())
        old = self._complete()[:-_KEPT]
        self._delete([name for name in self._names() if _stem(name) in old])

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        self._lines.append(dict(line))

    def write_metrics(self) -> None:
        data = "".join(json.dumps(line, allow_nan=False) + "\n" for line in self._lines)
        self._store.replace(f"{self._prefix}/{METRICS}", data.encode())

    def _metrics_until(self, step: int) -> list[dict[str, Any]]:
        try:
            lines = self._store.read(f"{self._prefix}/{METRICS}").splitlines()
        except FileNotFoundError:
            return []
        return [line for line in map(json.loads, lines) if line["step"] <= step]

    def _names(self) -> list[str]:
        return [entry.name for entry in self._store.list(f"{self._prefix}/{_FOLDER}", recursive=False)]

    def _complete(self) -> list[str]:
        """The stems of this fit's complete checkpoints, oldest first."""
        names = [name for name in self._names() if name.startswith(f"{self._job}-") and name.endswith(".json")]
        return sorted((_stem(name) for name in names), key=_step)

    def _delete(self, names: list[str]) -> None:
        """What publishes a checkpoint goes first, so that none is ever incomplete."""
        for name in sorted(names, key=lambda name: not name.endswith(".json")):
            self._store.delete(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{_FOLDER}/{name}"


def remove_fit(store: Store, prefix: str) -> None:
    """Removes checkpoints and metrics of whatever fit is below `prefix`."""
    names = [entry.name for entry in store.list(f"{prefix}/{_FOLDER}")]
    for name in sorted(names, key=lambda name: not name.endswith(".json")):
        store.delete(f"{prefix}/{_FOLDER}/{name}")
    store.delete(f"{prefix}/{METRICS}")


def _stem(name: str) -> str:
    """JOB-STEP, of the name of any object of a checkpoint."""
    return "-".join(name.removesuffix(".json").split("-")[:2])


def _step(stem: str) -> int:
    return int(stem.rpartition("-")[2])


def _parts(state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    parts: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in state.items():
        if size and size + tensor.nbytes > _PART:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += tensor.nbytes
    return parts
