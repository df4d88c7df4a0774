"""A Ray cluster whose autoscaler starts a node that claims a GPU when one is asked for, and ends it when it idles."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_head import CLUSTER

HEAD = "f" * 51 + "00000"
"""What Ray's provider of pretended nodes calls the head."""

IDLE = 6.0
"""Seconds without work after which a node is given back."""

MOST = 2
"""Nodes that it starts at the most, of CPU 2 and GPU 1 each."""

GCS, DASHBOARD, CLIENT, AGENT = 28466, 28465, 28467, 28468
STORE = 100_000_000

# Ends all that it has started when its standard input does: Ray's monitor leaves the nodes behind that it started.
_UNTIL_EOF = """
import subprocess, sys
from processes import adopt_orphans, clear, descendants
adopt_orphans()
head = subprocess.Popen(sys.argv[1:])
sys.stdin.read()
head.terminate()
clear(descendants(), 10)
"""


@dataclass(frozen=True)
class AutoscalingCluster:
    """One that runs. address: of its head; dashboard: a URL. environment: of commands. asked: a file with a line for
    each time that nodes were started: how many, and what each has."""

    address: str
    dashboard: str
    environment: dict[str, str]
    gate: Path
    asked: Path

    def gpus(self) -> int:
        """How many nodes there are that have one."""
        from ray._raylet import GcsClient  # type: ignore[attr-defined] - it is Cython's
        from ray.autoscaler.v2.sdk import get_cluster_resource_state
        from ray.core.generated.autoscaler_pb2 import NodeStatus  # type: ignore[attr-defined] - made by protoc

        nodes = get_cluster_resource_state(GcsClient(self.address)).node_states
        return sum(one.total_resources.get("GPU", 0) > 0 and one.status != NodeStatus.DEAD for one in nodes)


@contextmanager
def autoscaling_cluster(gate: Path, **environment: str) -> Iterator[AutoscalingCluster]:
    """gate: nodes come once this file is there. environment: of its nodes. In processes and a folder of its own; it
    ends when the block does, or whoever runs it."""
    folder = tempfile.mkdtemp(prefix="loom-auto-")  # short: sockets lie in it, whose paths are bounded
    from ray._private.services import get_node_ip_address

    here = get_node_ip_address()
    Path(folder, "config.yaml").write_text(json.dumps(_config(f"{here}:{GCS}")))
    helpers = Path(__file__).parent
    own = {
        **os.environ,
        "PATH": f"{CLUSTER}{os.pathsep}{os.environ['PATH']}",
        "RAY_TMPDIR": folder,
        "RAY_AUTH_MODE": "disabled",
        "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
    }
    variables = {
        **own,
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "RAY_enable_worker_prestart": "0",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        # As `ray up` and KubeRay have it.
        "RAY_NODE_TYPE_NAME": "ray.head.default",
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "PYTHONPATH": f"{helpers}{os.pathsep}{helpers.parent / 'chaos'}",
        "LATE_NODES_GATE": str(gate),
        **environment,
    }
    words = f"start --head --block --node-ip-address {here} --port {GCS} --dashboard-host 127.0.0.1"
    words += f" --dashboard-port {DASHBOARD} --ray-client-server-port {CLIENT} --dashboard-agent-listen-port {AGENT}"
    words += f" --num-cpus 1 --object-store-memory {STORE}"
    words += f" --temp-dir {folder}/ray --autoscaling-config {folder}/config.yaml"
    ray = [CLUSTER / "python", "-m", "ray.scripts.scripts", *words.split()]
    with open(f"{folder}/log", "wb") as log:
        process = subprocess.Popen(
            [CLUSTER / "python", "-c", _UNTIL_EOF, *ray], env=variables, stdin=subprocess.PIPE, stdout=log, stderr=log
        )
    assert process.stdin is not None
    try:
        began = time.monotonic()
        while "Ray runtime started" not in (said := Path(folder, "log").read_text()):
            assert process.poll() is None, said
            assert time.monotonic() - began < 120, said
            time.sleep(0.2)
        dashboard = f"http://127.0.0.1:{DASHBOARD}"
        yield AutoscalingCluster(f"{here}:{GCS}", dashboard, own, gate, gate.with_suffix(".asked"))
    finally:
        process.stdin.close()
        process.wait(timeout=120)
        shutil.rmtree(folder, ignore_errors=True)


def _config(address: str) -> dict[str, Any]:
    nodes = {"ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0}}
    offer = {"CPU": 2, "GPU": 1, "memory": 4 * 2**30, "object_store_memory": STORE}
    nodes["gpu"] = {"resources": offer, "node_config": {}, "min_workers": 0, "max_workers": MOST}
    commands = ("setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray", "initialization")
    return {
        **{f"{name}_commands": [] for name in commands},
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "cluster_name": "pretended",
        "max_workers": MOST,
        "provider": {
            "type": "external",
            "module": "late_nodes.LateNodes",
            "launch_multiple": True,
            "head_node_id": HEAD,
            "gcs_address": address,
            "disable_node_updaters": True,
        },
        "available_node_types": nodes,
        "head_node_type": "ray.head.default",
        "idle_timeout_minutes": IDLE / 60,
        "upscaling_speed": 1.0,
    }
