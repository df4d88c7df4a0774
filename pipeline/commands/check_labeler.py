"""What `check-labeler` does and prints. The labeler is at work in a process of its own, whose death is a finding."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from ...labelers.plugins.conformance import Check, check_labeler
from ...labelers.plugins.registry import RegistryError, find_labeler
from ..engine.probe import how_it_ended
from ..plan.steps import validated
from ..plan.weights import localise
from .printable import printable

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

_FOUND = "can be found"
"""What comes before all checks: the plugin's module is imported, and its parameters are looked at."""

_DONE = ""
"""Said at the end, in the place of a check's name."""


def check(reference: str, params: Mapping[str, Any], weights: Mapping[str, str]) -> None:
    """Prints each check when it has run; exit code 1 where one failed. weights: by the name of a labeler, this one or
    one that makes what it needs.

    Raises RegistryError where there is no such labeler, or it has no such parameters.
    """
    spawn = multiprocessing.get_context("spawn")
    connection, other = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(other, reference, params, weights))
    process.start()
    other.close()
    at, passed = _FOUND, True
    try:
        for said in _heard(connection, process):
            if isinstance(said, _Mistake):
                raise RegistryError(said.text)
            if isinstance(said, Check):
                print(printable(str(said)), flush=True)
                passed = passed and said.passed
            else:
                at = said
        process.join()
    finally:
        process.kill()
        process.join()
    if at != _DONE:
        print(Check(at, False, f"its process died: {how_it_ended(process.exitcode or 0)}"))
    sys.exit(0 if passed and at == _DONE else 1)


def _heard(connection: Connection, process: SpawnProcess) -> Iterator[Check | _Mistake | str]:
    """What the process says until it ends."""
    with suppress(EOFError, ConnectionError):
        while connection in wait([connection, process.sentinel]):
            yield connection.recv()


@dataclass(frozen=True)
class _Mistake:
    """What the user has to mend before anything can be checked."""

    text: str


def _serve(connection: Connection, reference: str, params: Mapping[str, Any], weights: Mapping[str, str]) -> None:
    """What the process does: says what it is about to check before it does, and what came out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process ends this one
    try:
        labeler_class = find_labeler(reference)
        checked = validated(labeler_class.Params, params, "--param")
        local = {name: localise(source, labeler_class=find_labeler(name)) for name, source in weights.items()}
        needed = {name: find_labeler(name)(weights=path) for name, path in local.items() if name != reference}
    except Exception as error:
        if not type(error).__module__.startswith("tokenloom."):
            raise
        connection.send(_Mistake(str(error)))
        return
    print(labeler_class.__name__, flush=True)
    check_labeler(labeler_class, checked, local.get(reference), needed, begins=connection.send, ended=connection.send)
    connection.send(_DONE)
