"""Attempts: counting, in the output, how often a unit was begun and not finished, and finding out why.

A sample that kills its process (a crash in a native library, the kernel's out-of-memory killer) leaves no exception
behind, and Ray would try its unit again for ever. So a stage leaves a mark before it begins a unit and removes it
after. A unit with several marks is taken apart first: its samples go one by one, step by step, through a process that
may die, and those that kill it are known by name.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..corpus.units import Unit
from ..dataset.layout import attempts_folder
from ..storage.store import Store
from .config import StageConfig
from .payload import UnitPayload
from .runner import Failed, Poison
from .unit_labeler import UnitLabeler

if TYPE_CHECKING:
    import pyarrow as pa

SUSPICIOUS = 3
"""Attempts after which a unit is taken apart. Machines die for other reasons, too; a search that finds nothing only
costs time."""

_DEATHS = 2
"""Processes that a sample must kill before it is to blame: one may have gone with its machine."""


class Attempts:
    """The marks of one unit in one stage."""

    def __init__(self, store: Store, unit: Unit, stage: str) -> None:
        self._store = store
        self._folder = attempts_folder(unit, stage)

    def begin(self) -> int:
        """Leaves a mark; how many there were before."""
        before = len(self._store.list(self._folder))
        self._store.create(f"{self._folder}/{uuid.uuid4().hex}", b"")
        return before

    def end(self) -> None:
        """Removes all marks."""
        for entry in self._store.list(self._folder):
            self._store.delete(f"{self._folder}/{entry.name}")


def find_poison(config: StageConfig, payload: UnitPayload) -> Poison:
    """The samples and steps that kill their process, found by sending each sample alone through a process that labels
    it and writes nothing."""
    import ray
    from ray.exceptions import ActorDiedError

    probe_class: Any = ray.remote(Probe).options(num_cpus=0, max_restarts=0, max_task_retries=0)
    poison: dict[tuple[int, str], Failed] = {}
    probe = probe_class.remote(config)
    steps = [step.name for step in config.stage.steps]
    for index in range(len(payload.samples)):
        block = _alone(payload, index).to_table()
        for step in steps:
            deadly = [name for at, name in poison if at == index]
            deaths: list[ActorDiedError] = []
            while len(deaths) < _DEATHS:
                try:
                    ray.get(probe.try_step.remote(block, step, deadly))
                    break
                except ActorDiedError as error:
                    deaths.append(error)
                    probe = probe_class.remote(config)
            else:
                poison[index, step] = Failed(f"killed its process: {_how(deaths[-1])}", "ProcessDied")
    ray.kill(probe)
    return poison


class Probe:
    """The process that may die: labels one sample up to one step."""

    def __init__(self, config: StageConfig) -> None:
        self._labeler = UnitLabeler(config, Store(config.output, config.storage_options))

    def try_step(self, block: pa.Table, step: str, deadly: list[str]) -> None:
        """Labels the only sample of the payload in `block` by the steps up to `step`, less the deadly ones."""
        payload = next(iter(UnitPayload.from_table(block)))
        self._labeler.label(payload, {(0, name): Failed("killed its process", "ProcessDied") for name in deadly}, step)


def _alone(payload: UnitPayload, index: int) -> UnitPayload:
    return replace(
        payload,
        samples=[payload.samples[index]],
        chunks=[(0, 1)],
        labels={name: _own(labels, len(payload.samples), index) for name, labels in payload.labels.items()},
    )


def _own(labels: list[bytes | None], samples: int, index: int) -> list[bytes | None]:
    per_sample = len(labels) // samples
    return labels[index * per_sample : (index + 1) * per_sample]


def _how(error: BaseException) -> str:
    """What Ray says of the death, in its first sentence about the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = next((line for line in lines if "exit" in line.lower() or "died" in line.lower()), "it died")
    return cause[:300]
