"""Fixtures for conftest.py files: the command line in this process, and in processes of their own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from tokenloom.pipeline.cli import main

LONGEST = 600
"""Seconds after which a process is taken to hang, on however busy a machine."""


@pytest.fixture(scope="session")
def tokenloom() -> Callable[..., str]:
    """A function that runs the command line in this process and gives what it prints; on the session's Ray, for which a
    test has to ask, or without."""
    import ray

    def run(*words: object) -> str:
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
            patch.setattr(sys, "argv", ["tokenloom", *map(str, words)])
            patch.setenv("COLUMNS", "200")
            patch.setattr(ray, "shutdown", lambda: None)  # other tests go on with it
            with pytest.raises(SystemExit) as end:
                main()
        assert end.value.code == 0, printed.getvalue()
        return printed.getvalue()

    return run


class CommandLine:
    """Runs the command line in processes of their own, each with a Ray of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *words: object, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tokenloom.pipeline.cli", *map(str, words)],
            cwd=self.folder,
            env={**os.environ, "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1", **environment},  # where /dev/shm is small
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def wait(self, process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
        """Waits until the condition is true, for which the process must still run."""
        deadline = time.monotonic() + LONGEST
        while not condition():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the process runs, and it doesn't come true"
            time.sleep(0.02)

    def end(self, process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
        """Waits for the process, which must end with this code: what it printed, and what it printed of errors."""
        printed, errors = process.communicate(timeout=LONGEST)
        assert process.returncode == code, printed + errors
        return printed, errors

    def __call__(self, *words: object) -> str:
        return self.end(self.start(*words))[0]


@pytest.fixture
def command_line(tmp_path: Path) -> Iterator[CommandLine]:
    """The command line in the test's folder. None of its processes outlives the test."""
    command = CommandLine(tmp_path)
    yield command
    for process in command.started:
        if process.poll() is None:
            process.kill()
            process.communicate()
