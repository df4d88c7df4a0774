"""A Ray cluster that claims GPUs, which Ray takes on trust; its workers compute on CPUs by TOKENLOOM_DEVICE=cpu."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# Two nodes, each with GPUs by its own word. Ends when its standard input does, however whoever started it ends.
_CLUSTER = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": int(sys.argv[1]), "num_gpus": int(sys.argv[2]), "object_store_memory": 120 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
cluster.add_node(**node)
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
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
