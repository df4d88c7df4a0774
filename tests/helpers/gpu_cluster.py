"""A Ray cluster that claims GPUs, which Ray takes on trust; its workers compute on CPUs by TOKENLOOM_DEVICE=cpu."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Two nodes, each with GPUs by its own word. Ends when its standard input does, however whoever started it ends.
_CLUSTER = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": int(sys.argv[1]), "num_gpus": int(sys.argv[2]), "object_store_memory": 120 * 2**20}
node |= {"no_monitor": True, "include_log_monitor": False}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
cluster.add_node(**node)
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""

# Runs command lines one after another, and says with what code each has ended. It stays connected between those that
# have one environment, so that they share the workers of their tasks.
_DRIVER = """
import json, os, sys
import ray
from tokenloom.pipeline.cli import main
codes, sys.stdout = sys.stdout, open(os.devnull, "w")
before = {}
disconnect, ray.shutdown = ray.shutdown, lambda: None
for line in sys.stdin:
    words, environment = json.loads(line)
    if environment != before:
        disconnect()
    before = environment
    os.environ.update(environment)
    sys.argv = ["tokenloom", *words]
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    print(code or 0, file=codes, flush=True)
"""


@contextmanager
def gpu_cluster(cpus: int = 2, gpus: int = 1) -> Iterator[str]:
    """The address of a cluster of two nodes with so many CPUs and GPUs each, in processes and a folder of its own."""
    folder = tempfile.mkdtemp(prefix="loom-gpu-")  # short: sockets lie in it, whose paths are bounded
    environment = {**os.environ, "RAY_TMPDIR": folder, "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1"}
    environment["RAY_enable_worker_prestart"] = "0"  # drivers bring a runtime_env, for which those would be no use
    cluster = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER, str(cpus), str(gpus)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    try:
        yield next(line.split()[1] for line in cluster.stdout if line.startswith("address "))
    finally:
        cluster.stdin.close()
        cluster.wait(timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


class Driver:
    """A process in a folder of its own that runs command lines on a cluster, one after another."""

    def __init__(self, address: str, folder: Path) -> None:
        self._errors = folder / "errors"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _DRIVER],
                cwd=folder,
                env={**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(Path(__file__).parent)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def run(self, *words: object, **environment: str) -> tuple[int, str]:
        """Runs `tokenloom WORDS...`, where the workers have these variables: its exit code, and what was printed of
        errors by whatever part of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        before = self._errors.stat().st_size
        print(json.dumps([[*map(str, words)], environment]), file=self._process.stdin, flush=True)
        code = self._process.stdout.readline()
        errors = self._errors.read_bytes()[before:].decode()
        assert code, errors
        return int(code), errors

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=120)
