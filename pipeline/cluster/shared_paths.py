"""Whether every machine of a cluster sees the local paths that a run needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .session import EngineError


def check_shared(paths: Sequence[str]) -> None:
    """Raises EngineError where a node that has CPUs lacks one of the paths, which are there on this one. Ray is up.

    A node that is gone, or goes meanwhile, lacks nothing: nothing is done there.
    """
    import ray
    from ray.exceptions import NodeDiedError, TaskUnschedulableError, WorkerCrashedError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if len(nodes) < 2:
        return
    look: Any = ray.remote(_missing)
    where = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    asked = [look.options(num_cpus=0, scheduling_strategy=one).remote(list(paths)) for one in where]
    for node, answer in zip(nodes, asked, strict=True):
        try:
            missing = ray.get(answer)
        except (NodeDiedError, TaskUnschedulableError, WorkerCrashedError):
            continue
        if missing:
            raise EngineError(
                f"{missing[0]}: not seen by {node['NodeManagerHostname']}, one of the cluster's {len(nodes)} nodes; "
                f"give a URL of object storage, or a folder that all nodes mount"
            )


def _missing(paths: list[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]
