"""How large the cluster is, node by node, as Ray tells it."""

from __future__ import annotations

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
    """All machines that there are now; an autoscaler may bring more."""

    nodes: tuple[Node, ...]

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
        return ClusterSize((Node(os.cpu_count() or 1, _gpus_here()),))
    start_ray()
    import ray

    alive = [(node["NodeID"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return ClusterSize(
        tuple(Node(offer.get("CPU", 0), offer.get("GPU", 0), offer.get("memory", 0), id) for id, offer in alive)
    )


def _gpus_here() -> int:
    import torch

    return torch.cuda.device_count()
