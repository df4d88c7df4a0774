"""The probe: finds the samples that kill their process, by sending them one by one through a process that may die.

The process is a child of the stage's own, so that it has the stage's GPUs, and takes no more memory than the stage has
given up for it. It says what it is about to do before it does it: what it was at when it died is to blame.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from ..cluster.session import EngineError
from ..storage.store import Store
from .config import StageConfig
from .labeling import DECODING
from .payload import UnitPayload
from .runner import Failed, Poison
from .unit_labeler import UnitLabeler

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

_DEATHS = 2
"""Processes that a sample must kill before it is to blame: one may have gone with its machine."""

_DONE = "\0done"


def find_poison(config: StageConfig, payload: UnitPayload) -> Poison:
    """The samples of a unit, and the steps, that kill their process. Each sample is labelled once, and once more for
    each death; the models are loaded once, and once more for each death.

    Raises EngineError where a labeler kills the process while it is loaded: no sample is to blame for that.
    """
    poison: dict[tuple[int, str], Failed] = {}
    deaths: Counter[tuple[int, str]] = Counter()
    with _Probe(config) as probe:
        for index in range(len(payload.samples)):
            while True:
                deadly = {(0, step): failed for (at, step), failed in poison.items() if at == index}
                step = probe.died_at(_alone(payload, index), deadly)
                if step is None:
                    break
                deaths[index, step] += 1
                if deaths[index, step] == _DEATHS:
                    poison[index, step] = Failed(f"killed its process: {probe.how}", "ProcessDied")
    return poison


class _Probe:
    """The process, started again whenever it has died. how: of what it died last."""

    def __init__(self, config: StageConfig) -> None:
        self._config = config
        self._process: SpawnProcess | None = None
        self.how = ""

    def __enter__(self) -> _Probe:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._connection.close()  # at whose end it ends
            self._process.join(timeout=5)
            self._process.kill()
            self._process.join()

    def died_at(self, payload: UnitPayload, deadly: Poison) -> str | None:
        """The step at which labelling the payload killed the process; None where it didn't."""
        if self._process is None:
            self._start()
        with suppress(ConnectionError):  # it died since: `_heard` finds that
            self._connection.send((payload, dict(deadly)))
        return self._heard()

    def _start(self) -> None:
        """Loads the models. Raises EngineError where that kills the process as often as a sample may."""
        for _ in range(_DEATHS):
            spawn = multiprocessing.get_context("spawn")
            self._connection, other = spawn.Pipe()
            self._process = spawn.Process(target=_serve, args=(other, self._config), daemon=True)
            self._process.start()
            other.close()
            loading = self._heard()
            if loading is None:
                return
        raise EngineError(
            f"the labeler of {loading} kills its process while it is loaded: {self.how}. No sample is to blame: look "
            f"at its weights and its libraries, and whether the machine has the memory that it needs"
        )

    def _heard(self) -> str | None:
        """What the process was at when it died; None when it got through. Notes how it died."""
        at = DECODING
        with suppress(EOFError, ConnectionError):
            while (said := self._connection.recv()) != _DONE:
                at = said
            return None
        assert self._process is not None
        self._process.join()
        self.how = how_it_ended(self._process.exitcode or 0)
        self._process = None
        return at


def _serve(connection: Connection, config: StageConfig) -> None:
    """What the process does: loads all models, then labels what comes, and tells each step before it begins."""
    labeler = UnitLabeler(config, Store(config.output, config.storage_options))
    for step in config.stage.steps:
        connection.send(step.name)
        with suppress(Exception):  # which the stage itself will raise where people can read it
            labeler.models.runner(step)
    connection.send(_DONE)
    with suppress(EOFError, ConnectionError):
        while True:
            payload, deadly = connection.recv()
            with suppress(Exception):  # likewise
                labeler.label(payload, deadly, began=connection.send)
            connection.send(_DONE)


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


def how_it_ended(code: int) -> str:
    """Of what a process with that exit code died."""
    if code >= 0:
        return f"it ended itself with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name}, which is how the kernel ends what takes too much memory" if name == "SIGKILL" else name
