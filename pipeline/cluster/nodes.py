"""Something done on every node of the cluster, whatever becomes of single nodes."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import machine
from .runtime_env import SECONDS, runtime_env, why_unmade

PATIENCE = 120.0
"""Seconds within which a node has to answer: its first worker may have to be started."""
_LOOK = 2.0
"""Seconds between looks at whether it is alive."""


@dataclass(frozen=True)
class NodeHere:
    """A node that is alive. name: its host's, made unique. gpus: as it claims. store: bytes of its object store.
    session: the folder of its logs, and of what it has no memory for. cpus: without any it takes no part in the work.
    is_head: it leads the cluster.
    """

    id: str
    name: str
    cpus: float = 0.0
    gpus: float = 0.0
    store: float = 0.0
    session: str = ""
    is_head: bool = False


@dataclass(frozen=True)
class NodeError:
    """Why a node gave no answer. gone: it died, or is about to."""

    said: str
    gone: bool = False


def alive_nodes() -> list[NodeHere]:
    """Of the cluster, by their names. Ray is up."""
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    hosts = Counter(node["NodeManagerHostname"] for node in alive)
    found = []
    for node in alive:
        host, offer = node["NodeManagerHostname"], node["Resources"]
        name = host if hosts[host] == 1 else f"{host}/{node['NodeID'][:6]}"
        cpus, gpus, store = (offer.get(resource, 0.0) for resource in ("CPU", "GPU", "object_store_memory"))
        session = str(Path(node["RayletSocketName"]).parents[1])
        found.append(NodeHere(node["NodeID"], name, cpus, gpus, store, session, "node:__internal_head__" in offer))
    return sorted(found, key=lambda node: node.name)


def own_node() -> str:
    """The id of the node that this process is on."""
    import ray

    return ray.get_runtime_context().get_node_id()


def on_nodes(
    work: Callable[..., Any], arguments: Callable[[NodeHere], Sequence[Any]], nodes: Sequence[NodeHere]
) -> dict[NodeHere, Any | NodeError]:
    """What `work` returns on each of the nodes, of these arguments for each. It claims nothing, so that it has room
    beside whatever runs there."""
    import ray

    by_value(work)
    task: Any = ray.remote(work)
    return answers({node: task.options(num_cpus=0, **place_on(node)).remote(*arguments(node)) for node in nodes})


def in_environments(
    work: Callable[..., Any], arguments: Sequence[Any], environments: Sequence[Sequence[str]], nodes: Sequence[NodeHere]
) -> list[dict[NodeHere, Any | NodeError]]:
    """What `work` returns in each of the environments, of its pins and these arguments, on each of the nodes. All are
    made at the same time, where they aren't yet."""
    import ray

    by_value(work)
    task: Any = ray.remote(work)
    asked = [
        {
            node: task.options(num_cpus=0, runtime_env=runtime_env(pins), **place_on(node)).remote(pins, *arguments)
            for node in nodes
        }
        for pins in environments
    ]
    return [answers(one, SECONDS + PATIENCE) for one in asked]


@contextmanager
def machines(nodes: Sequence[NodeHere]) -> Iterator[dict[NodeHere, Any]]:
    """An actor of `machine.Machine` on each of the nodes, while the block runs."""
    import ray

    by_value(machine.Machine)
    actor: Any = ray.remote(machine.Machine)
    actors = {node: actor.options(num_cpus=0, **place_on(node)).remote() for node in nodes}
    try:
        yield actors
    finally:
        for one in actors.values():
            ray.kill(one)


def by_value(work: Callable[..., Any]) -> None:
    """Has what its module holds sent along, instead of its name."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[work.__module__])


def answers(asked: Mapping[NodeHere, Any], seconds: float = PATIENCE) -> dict[NodeHere, Any | NodeError]:
    """What the references come to, within so many seconds for all of them together. A node that falls silent gives no
    error, even once Ray takes it for dead: so that is looked at meanwhile."""
    import ray
    from ray.exceptions import (
        GetTimeoutError,
        NodeDiedError,
        RayError,
        RuntimeEnvSetupError,
        TaskUnschedulableError,
        WorkerCrashedError,
    )

    deaths = (NodeDiedError, TaskUnschedulableError, WorkerCrashedError)
    until = time.monotonic() + seconds
    found: dict[NodeHere, Any | NodeError] = {}
    for node, reference in asked.items():
        try:
            while (left := until - time.monotonic()) > 0 and _is_alive(node):
                if ray.wait([reference], timeout=min(_LOOK, left))[0]:
                    break
            found[node] = ray.get(reference, timeout=0)
        except GetTimeoutError:
            gone = not _is_alive(node)
            found[node] = NodeError("it died" if gone else f"no answer within {seconds:.0f} s", gone)
        except RuntimeEnvSetupError as error:
            found[node] = NodeError(why_unmade(error.error_message))
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            found[node] = NodeError(f"{type(cause).__name__}: {_last_line(cause)}", isinstance(error, deaths))
    return found


def _is_alive(node: NodeHere) -> bool:
    import ray

    return any(one["NodeID"] == node.id and one["Alive"] for one in ray.nodes())


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[-1].strip()


def place_on(node: NodeHere) -> dict[str, Any]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False)}
