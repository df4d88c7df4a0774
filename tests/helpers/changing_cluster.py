"""A Ray cluster whose nodes come and go as they are told to. Run as a script, it is that cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NODE = {"object_store_memory": 120 * 2**20, "no_monitor": True, "include_log_monitor": False}


class ChangingCluster:
    """The head, without a CPU of its own unless told otherwise, and nodes that are started and ended by their ids."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._answer()

    def add(self, **offer: float) -> str:
        """A node more: its id."""
        return self._ask("add", offer)

    def kill(self, node: str) -> None:
        """Its machine is gone at once."""
        self._ask("kill", node)

    def warn(self, node: str) -> None:
        """What SIGTERM has `ray start --block` do, as Kubernetes sends it: the node is drained for at most
        RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S seconds, then it ends."""
        self._ask("warn", node)

    def gone(self, node: str) -> float:
        """Waits until a node that was warned has ended: how many seconds after the warning."""
        return float(self._ask("gone", node))

    def _ask(self, what: str, of: Any) -> str:
        assert self._process.stdin is not None
        print(json.dumps([what, of]), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = next((line for line in self._process.stdout if line.startswith("answer ")), None)
        assert answer is not None, "the cluster has ended"
        return answer.split()[1]


@contextmanager
def changing_cluster(**environment: str) -> Iterator[ChangingCluster]:
    """In processes and a folder of its own, of nodes with that environment; it ends when the block does, or whoever
    runs it."""
    folder = tempfile.mkdtemp(prefix="loom-nodes-")  # short: sockets lie in it, whose paths are bounded
    variables = {
        **os.environ,
        "RAY_TMPDIR": folder,
        "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
        "RAY_enable_worker_prestart": "0",
        "PYTHONPATH": str(Path(__file__).parent),
        **environment,
    }
    process = subprocess.Popen(
        [sys.executable, __file__],
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    try:
        yield ChangingCluster(process)
    finally:
        process.stdin.close()
        process.wait(timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


def _serve() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    nodes: dict[str, Any] = {}
    ending: dict[str, threading.Thread] = {}
    took: dict[str, float] = {}

    def drain(id: str) -> None:
        began = time.monotonic()
        nodes[id]._drain_node_before_shutdown()
        nodes[id].kill_all_processes(check_alive=False, allow_graceful=True)
        took[id] = time.monotonic() - began

    print("answer", cluster.address, flush=True)
    for line in sys.stdin:
        what, of = json.loads(line)
        if what == "add":
            node = cluster.add_node(**NODE, **of)
            nodes[node.node_id] = node
            answer = node.node_id
        elif what == "kill":
            nodes[of].kill_all_processes(check_alive=False, allow_graceful=False)
            answer = of
        elif what == "warn":
            ending[of] = threading.Thread(target=drain, args=(of,))
            ending[of].start()
            answer = of
        else:
            ending[of].join()
            answer = took[of]
        print("answer", answer, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    _serve()
