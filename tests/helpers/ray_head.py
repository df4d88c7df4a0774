"""A Ray head with its dashboard, in the environment that has the extra `cluster`."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CLUSTER = Path(sys.prefix) / "cluster/bin"  # infra/dev makes it
DASHBOARD, GCS, CLIENT, AGENT = 28365, 28366, 28367, 28368
"""Ports outside those that Ray gives to workers, 10002 to 19999."""

_UNTIL_EOF = '"$@" & cat >/dev/null; kill $!; wait $!'
"""Ends what it starts when its standard input does: also when pytest is killed."""


@dataclass(frozen=True)
class Head:
    """A head that runs. environment: of commands that may use it. folder: of all that it writes; pip finds what lies in
    its `wheels`, and nothing else."""

    address: str
    environment: dict[str, str]
    folder: Path

    def start(self, *words: object, cwd: Path, **environment: str) -> subprocess.Popen[str]:
        """The command `tokenloom` in a process, with its output in one stream."""
        return subprocess.Popen(
            [CLUSTER / "python", "-m", "tokenloom.pipeline.cli", *map(str, words)],
            cwd=cwd,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def command(self, *words: object, cwd: Path, **environment: str) -> tuple[int, str]:
        process = self.start(*words, cwd=cwd, **environment)
        said, _ = process.communicate(timeout=300)
        return process.returncode, said


@contextmanager
def ray_head() -> Iterator[Head]:
    """Asks for a token, as one on a real cluster should. Waits for another head of these ports to end."""
    with open(Path(tempfile.gettempdir(), f"loom-head-{DASHBOARD}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield from _head()


def _head() -> Iterator[Head]:
    folder = tempfile.mkdtemp(prefix="loom-head-")  # short: sockets lie in it, whose paths are bounded
    environment = {
        **os.environ,
        "PATH": f"{CLUSTER}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_TMPDIR": folder,
        "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # there is no other node to drain to
        # In which a process for a client of `ray://` has to start; 30 s by itself, which two busy cores can exceed.
        "RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S": "150",
        # Else that process may abort in gRPC's own handlers, between its fork and its exec (Ray issue 63202).
        "GRPC_ENABLE_FORK_SUPPORT": "0",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": f"{folder}/wheels",
    }
    words = f"start --head --block --port {GCS} --dashboard-host 127.0.0.1 --dashboard-port {DASHBOARD} --num-cpus 2"
    words += f" --ray-client-server-port {CLIENT} --dashboard-agent-listen-port {AGENT} --temp-dir {folder}/ray"
    words += " --object-store-memory 200000000"
    with open(f"{folder}/log", "wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", _UNTIL_EOF, "bash", CLUSTER / "python", "-m", "ray.scripts.scripts", *words.split()],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    try:
        began = time.monotonic()
        while not _answers():
            if time.monotonic() - began > 120:
                pytest.fail(f"the head didn't start:\n{Path(folder, 'log').read_text()}", pytrace=False)
            time.sleep(0.5)
        yield Head(f"http://127.0.0.1:{DASHBOARD}", environment, Path(folder))
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def raylet(head: Head, python: Path, *words: str, **environment: str) -> Iterator[None]:
    """A node more, of another environment's Python, while the block runs."""
    while not (before := alive_nodes(head)):  # the head itself takes a while to be told of
        time.sleep(0.2)
    name = python.parent.parent.name
    start = f"start --block --address 127.0.0.1:{GCS} --num-cpus 1 --object-store-memory 100000000".split()
    # As a machine of its own has it. Nodes that share one take the folder of a job away from each other: Ray's agent of
    # each unpacks it there anew, in the place of what the others' processes run in.
    start += ["--temp-dir", f"{head.folder}/{name}"]
    with open(head.folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", _UNTIL_EOF, "bash", python, "-m", "ray.scripts.scripts", *start, *words],
            env={**head.environment, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", **environment},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )
    try:
        began = time.monotonic()
        while alive_nodes(head) == before:
            assert process.poll() is None, log.name
            assert time.monotonic() - began < 120, log.name
            time.sleep(0.5)
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=120)


def asked(head: Head, path: str) -> Any:
    """What the dashboard answers, as JSON."""
    headers = {"Authorization": f"Bearer {head.environment['RAY_AUTH_TOKEN']}"}
    with urllib.request.urlopen(urllib.request.Request(f"{head.address}{path}", headers=headers), timeout=30) as answer:
        return json.load(answer)


def alive_nodes(head: Head) -> int:
    nodes = asked(head, "/api/v0/nodes?limit=100")["data"]["result"]["result"]
    return sum(node["state"] == "ALIVE" for node in nodes)


def other_environment(folder: Path, **versions: str) -> Path:
    """The Python of an environment that has what CLUSTER has, but says that it has these versions of distributions."""
    folder.mkdir()
    (folder / "pyvenv.cfg").write_text((CLUSTER.parent / "pyvenv.cfg").read_text())
    shutil.copytree(CLUSTER, folder / "bin", symlinks=True)
    below = next(CLUSTER.parent.glob("lib/python*/site-packages"))
    packages = folder / below.relative_to(CLUSTER.parent)
    packages.mkdir(parents=True)
    (packages / "below.pth").write_text(f"import site; site.addsitedir({str(below)!r})\n")
    for name, version in versions.items():
        (packages / f"{name}-{version}.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (packages / f"{name}-{version}.dist-info/METADATA").write_text(metadata)
    return folder / "bin/python"


def _answers() -> bool:
    """Both the dashboard, and the server of Ray Client, which starts later."""
    try:
        socket.create_connection(("127.0.0.1", CLIENT), timeout=5).close()
        urllib.request.urlopen(f"http://127.0.0.1:{DASHBOARD}/api/version", timeout=5)
    except urllib.error.HTTPError:
        return True  # it asks for the token
    except OSError:
        return False
    return True
