"""The driver of a command that came through Ray Client: a process on the head, beside an actor that hands on what it
says. Sent along by value, for the cluster may have no tokenloom or another one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from subprocess import PIPE, Popen
from threading import Condition, Thread
from typing import IO

ALONE = 60.0
"""Seconds after which the command is stopped when nobody has asked for what it says."""
_WAIT = 5.0
"""Seconds for which an answer is held back while there is nothing to say."""
_LOOK = 1.0


class Driver:
    """The process: a driver of its own, in the actor's working directory. It dies with the actor, and that with the
    connection of Ray Client; a connection that falls silent Ray takes for alive for ten minutes, this doesn't."""

    def __init__(self, words: Sequence[str], columns: int) -> None:
        """words: of the process' command, after Python. columns: of the lines that it says."""
        self._news = Condition()
        self._said: list[tuple[int, str]] = []
        self._taken = 0  # of all that was ever said, what the other side has
        self._open = 2
        self._asked = time.monotonic()
        # Ray blocks SIGINT in its processes, and what they start: so it is stopped by SIGTERM.
        variables = {**_own(), "COLUMNS": str(columns)}
        self._process = Popen(
            [sys.executable, *words],
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            text=True,
            errors="replace",
            env=variables,
        )
        for number, stream in ((1, self._process.stdout), (2, self._process.stderr)):
            Thread(target=self._listen, args=(number, stream), daemon=True).start()
        Thread(target=self._watch, daemon=True).start()

    def read(self, taken: int) -> tuple[list[tuple[int, str]], int | None]:
        """The lines, each with the number of its stream, after those that were taken; and once there are no more, the
        exit code. Waits a little for news."""
        with self._news:
            self._asked = time.monotonic()
            del self._said[: taken - self._taken]
            self._taken = taken
            self._news.wait_for(lambda: self._said or not self._open, _WAIT)
            self._asked = time.monotonic()
            return list(self._said), None if self._open else _as_shells_have_it(self._process.wait())

    def stop(self) -> None:
        self._process.terminate()

    def _listen(self, number: int, stream: IO[str]) -> None:
        for line in stream:
            with self._news:
                self._said.append((number, line))
                self._news.notify_all()
        with self._news:
            self._open -= 1
            self._news.notify_all()

    def _watch(self) -> None:
        while self._process.poll() is None:
            if time.monotonic() - self._asked > ALONE:
                self.stop()
                return
            time.sleep(_LOOK)


def _as_shells_have_it(code: int) -> int:
    """128 and the signal's number, where a signal ended it."""
    return code if code >= 0 else 128 - code


def _own() -> dict[str, str]:
    """The process' environment, by which it becomes a driver of the actor's cluster whose workers have the actor's
    working directory; as Ray's Jobs API has it."""
    import ray
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
    from ray._private.utils import remove_ray_internal_flags_from_env

    context = ray.get_runtime_context()
    variables = dict(os.environ)
    remove_ray_internal_flags_from_env(variables)
    return variables | {
        "RAY_ADDRESS": context.gcs_address,
        RAY_JOB_CONFIG_JSON_ENV_VAR: json.dumps({"runtime_env": {"working_dir": context.runtime_env["working_dir"]}}),
        "PYTHONUNBUFFERED": "1",
    }
