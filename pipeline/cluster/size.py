"""How large the cluster is, node by node, as Ray tells it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass

from .session import start_ray


@dataclass(frozen=True)
class Node:
    """What one machine offers. memory: bytes; 0 where it isn't known. id: Ray's, "" before Ray is started."""

    cpus: float
    gpus: float = 0.0
    memory: float = 0.0
    id: str = ""


@dataclass(frozen=True)
class ClusterSize:
    """All machines that there are now. grows: whether others may join, as they may any cluster but the one that was
    started for this process; scales: whether an autoscaler may bring what isn't there."""

    nodes: tuple[Node, ...]
    grows: bool = False
    scales: bool = False

    @property
    def cpus(self) -> float:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(node.gpus for node in self.nodes)

    @property
    def memory(self) -> float:
        return sum(node.memory for node in self.nodes)


def cluster_size() -> ClusterSize:
    """Of the cluster that RAY_ADDRESS names or that runs already, else of this machine, before Ray is started."""
    if "RAY_ADDRESS" not in os.environ and "ray" not in sys.modules:
        return this_machine()
    start_ray()
    import ray

    alive = [(node["NodeID"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
    nodes = tuple(Node(offer.get("CPU", 0), offer.get("GPU", 0), offer.get("memory", 0), id) for id, offer in alive)
    return ClusterSize(nodes, "RAY_ADDRESS" in os.environ, _scales())


def this_machine() -> ClusterSize:
    """What Ray would have, were it started here."""
    return ClusterSize((Node(os.cpu_count() or 1, _gpus_here()),))


def _scales() -> bool:
    """Whether an autoscaler watches the cluster, or is about to. It calls nodes by the types of its configuration;
    where there is none, Ray's monitor calls each by its id."""
    import ray
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
    from ray.autoscaler._private.util import format_readonly_node_type
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.experimental.internal_kv import _internal_kv_get

    status = get_cluster_status(ray.get_runtime_context().gcs_address)
    nodes = [(one.ray_node_type_name, one.node_id or "") for one in (*status.active_nodes, *status.idle_nodes)]
    first = json.loads(_internal_kv_get(DEBUG_AUTOSCALING_STATUS.encode()) or "{}").get("autoscaler_report")
    if first is None or status.stats.autoscaler_version not in (None, "0"):  # the second version's, or none's so far
        return any(type != format_readonly_node_type(id) for type, id in nodes)
    own = {format_readonly_node_type(id) for _, id in nodes}
    return not own.issuperset(first.get("active_nodes", ()))


def _gpus_here() -> int:
    import torch

    return torch.cuda.device_count()
