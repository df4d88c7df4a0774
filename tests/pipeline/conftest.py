"""What tests of the pipeline share: stores of each sort, and the command line."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from disk import no_power_cuts as no_power_cuts
from tokenloom.pipeline.cli import main
from tokenloom.pipeline.storage.store import Store

LONGEST = 600
"""Seconds after which a process is taken to hang, on however busy a machine."""


PLACES = ["local", "memory", pytest.param("s3", marks=pytest.mark.s3)]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each sort."""
    if request.param == "local":
        return Store(tmp_path / "place")
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4()}")
    return Store(request.getfixturevalue("s3_url"))


@pytest.fixture(scope="module", params=PLACES)
def kept_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same for a whole file of tests, to be filled once, by a fixture, and changed by nobody else."""
    name = f"kept-{uuid.uuid4()}"
    if request.param == "local":
        return Store(tmp_path_factory.mktemp("place"))
    if request.param == "memory":
        return Store(f"memory://{name}")
    import s3fs

    request.getfixturevalue("s3_server")
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
    return Store(f"s3://{name}/place")


# --- the command line -------------------------------------------------------------------------------------------------


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


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("switch") / "now"


@pytest.fixture
def now(switch: Path) -> Path:
    """What a labeler waits for; of one name, for recipes that are alike."""
    switch.unlink(missing_ok=True)
    return switch
