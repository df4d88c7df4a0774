"""Starts commands of tokenloom and of Ray as processes of their own, on this machine or in a host's namespaces.

They are forked off a process that has imported all modules, since importing them takes longer than a small run.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Process, descendants

_NAMESPACES = ("net", "mnt", "uts", "pid")


class Spawned:
    """A command at work, as subprocess.Popen has it."""

    def __init__(self, waiter: int, log: Path) -> None:
        self.log = log
        self.returncode: int | None = None
        self._waiter = waiter
        self._code = log.with_suffix(".code")

    @property
    def processes(self) -> list[Process]:
        """Itself, and all that it has started; nothing once it is over."""
        return descendants(self._waiter)

    def poll(self) -> int | None:
        if self.returncode is None:
            with suppress(FileNotFoundError):
                self.returncode = int(self._code.read_text() or "0")
        return self.returncode

    def kill(self) -> None:
        for process in self.processes[:1]:
            process.kill()

    def ask_where(self) -> None:
        """Has it print the stacks of its threads to its log."""
        if any(process.send(signal.SIGUSR1) for process in self.processes[:1]):
            time.sleep(1)

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.02)
        assert self.returncode is not None
        return self.returncode


@dataclass
class Spawner:
    """Starts them with this environment, in a folder in which they find their plugins."""

    folder: Path
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        words = [sys.executable, __file__]
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            words, cwd=self.folder, env=dict(self.environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, words: Sequence[str], log: Path, within: int | None = None, **environment: str) -> Spawned:
        """words: `tokenloom ...`, `ray ...`, or `fill`. within: the process in whose namespaces it runs."""
        log.with_suffix(".code").unlink(missing_ok=True)
        order = {"words": list(words), "log": str(log), "within": within, "environment": environment}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            print(json.dumps(order), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        if not answer:
            raise OSError("the process is gone off which commands are forked")
        return Spawned(int(answer), log)

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _serve() -> int:
    """Reads orders and forks; the exit code, in the processes that it forks that of their command."""
    commands = _commands()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        order = json.loads(line)
        if waiter := os.fork():
            print(waiter, flush=True)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if order["within"] is not None:
            _enter(order["within"])
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            part = Path(order["log"]).with_suffix(".part")
            part.write_text(str(os.waitstatus_to_exitcode(status)))
            part.rename(part.with_suffix(".code"))
            os._exit(0)
        _become(order)
        return _run(commands)
    return 0


def _run(commands: Mapping[str, Callable[[], Any]]) -> int:
    faulthandler.register(signal.SIGUSR1)
    return commands[sys.argv[0]]() or 0


def _commands() -> dict[str, Callable[[], Any]]:
    import ray.data
    import ray.scripts.scripts
    from tokenloom.pipeline.cli import main as tokenloom
    from tokenloom.pipeline.commands import run  # noqa: F401 - imported here, once for all

    return {"tokenloom": tokenloom, "ray": ray.scripts.scripts.main, "fill": _fill}


def _fill() -> None:
    """Puts more into the object store of the node beside it than that holds, says so, and keeps it."""
    import numpy as np
    import ray

    ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.ERROR)
    kept = [ray.put(np.full(2 * 10**7, number, np.uint8)) for number in range(8)]
    print(f"full: {len(kept)}", flush=True)
    time.sleep(600)


def _enter(process: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    here = Path.cwd()
    for handle in [os.open(f"/proc/{process}/ns/{name}", os.O_RDONLY) for name in _NAMESPACES]:
        if libc.setns(handle, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(handle)
    os.chdir(here)


def _become(order: dict) -> None:
    os.setsid()
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(log, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(order["environment"])
    if "LD_PRELOAD" in order["environment"]:  # a process gets that by beginning anew
        os.execv(sys.executable, [sys.executable, __file__, *order["words"]])
    random.seed()  # else all that are forked draw the same
    sys.argv = order["words"]


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.argv = sys.argv[1:]
        sys.exit(_run(_commands()))
    sys.exit(_serve())
