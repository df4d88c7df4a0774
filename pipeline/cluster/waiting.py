"""What workers wait for and no node has, and nodes that are about to go: told, while it is so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Thread

from .packing import Demand, NoRoom, pack
from .size import ClusterSize, Node
from .turn import turn_of

_EVERY = 1.0
PATIENCE = 20.0
"""Seconds for which a worker waits before it is told: a node may just have gone, whose place another takes."""
_TURN = 40.0
"""Seconds for which it waits for what other jobs have before it is told."""

_ROUNDING = 1e-4
"""To which Ray counts."""

_WAY_OUT = "Add a node; or end this run and start it again, which plans for the nodes that there are"

Request = Mapping[str, float]
"""What one worker asks for: CPU, GPU, and memory in bytes."""


@dataclass(frozen=True)
class Pool:
    """Workers that are alike. asked: what each asks for; least: how many there must be."""

    asked: Request
    least: int = 1

    @property
    def demands(self) -> list[Demand]:
        """Of the least workers."""
        amounts = (self.asked.get(name, 0.0) for name in ("CPU", "GPU", "memory"))
        return [Demand(*amounts)] * self.least


@dataclass(frozen=True)
class Cluster:
    """As the GCS has it. pending: what workers of any job wait for. leaving: nodes that drain, as spot machines do
    after their warning, by Ray's ids; nodes: all others."""

    pending: Sequence[Request] = ()
    nodes: Sequence[Node] = ()
    leaving: Mapping[str, Node] = field(default_factory=dict)


@contextmanager
def waits_told(pools: Mapping[str, Pool], tell: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, `tell` hears of each pool whose workers wait for what no node offers, or for what other
    jobs have, once until that has changed, and of each node that is about to go. pools: by what they make."""
    import ray

    if not ray.is_initialized():
        yield
        return
    over = Event()
    here = ray.get_runtime_context()  # asked here: in a thread it would start a Ray where none is left
    arguments = (here.gcs_address, here.get_job_id(), pools, tell, over)
    watcher = Thread(target=_watch, args=arguments, daemon=True, name="waiting")
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(head: str, job: str, pools: Mapping[str, Pool], tell: Callable[[str], None], over: Event) -> None:
    seconds: dict[str, float] = {}
    queued = 0.0
    left: set[str] = set()
    while not over.wait(_EVERY):
        with suppress(Exception):  # a head that is away is somebody else's to tell; Ray's own errors are of many kinds
            cluster = _cluster(head)
            for id in cluster.leaving.keys() - left:
                tell(f"a node of {_words(_offer(cluster.leaving[id]))} is about to go: its work goes on elsewhere")
            left |= cluster.leaving.keys()
            pending = [name for name, pool in pools.items() if any(map(_alike(pool.asked), cluster.pending))]
            found = without_room(pools, cluster.nodes) if pending else {}
            waiting = found.keys() & pending
            seconds = {name: seconds.get(name, 0.0) + _EVERY for name in waiting}
            for name, waited in seconds.items():
                if waited - _EVERY < PATIENCE <= waited:
                    tell(f"waiting for a node: {found[name]}")
            queued = queued + _EVERY if pending and not waiting else 0.0
            if queued - _EVERY < _TURN <= queued and (turn := turn_of(job, head)).waits:
                who = f"other jobs ({', '.join(turn.others)})" if turn.others else "others"
                tell(f"waiting for {_words(pools[pending[0]].asked)}: what the cluster has is in use by {who}")


def without_room(pools: Mapping[str, Pool], nodes: Sequence[Node]) -> dict[str, str]:
    """The pools of which a worker may wait for ever, with the reason: no node could hold one, were it empty; or the
    least workers of all pools don't fit together, so that those that are there keep the room of those that aren't."""
    reasons = {name: explained(name, pool.asked, nodes) for name, pool in pools.items()}
    fitting = {name: pool for name, pool in pools.items() if any(_holds(node, pool.asked) for node in nodes)}
    found = {name: f"{reasons[name]}. {_WAY_OUT}" for name in pools.keys() - fitting.keys()}
    workers = [demand for pool in fitting.values() for demand in pool.demands]
    if isinstance(pack(workers, ClusterSize(tuple(nodes))), NoRoom):
        together = "together the least workers of all stages have no room there"
        found |= {name: f"{reasons[name]}; {together}. {_WAY_OUT}" for name in fitting}
    return found


def nodes_for(asked: Request, head: str) -> list[str]:
    """Ids of those that could hold such a worker, were they empty, but for those that are about to go; none where the
    head, at that address, doesn't answer."""
    with suppress(Exception):  # Ray's own errors are of many kinds
        return sorted(node.id for node in _cluster(head).nodes if _holds(node, asked))
    return []


def explained(name: str, asked: Request, nodes: Sequence[Node]) -> str:
    """What a pool's worker asks for, and what there is."""
    offers = ", ".join(dict.fromkeys(_words(_offer(node)) for node in nodes)) or "nothing"
    return f"a worker for {name} asks for {_words(asked)}; nodes have {offers}"


def _holds(node: Node, asked: Request) -> bool:
    offer = _offer(node)
    return all(offer.get(name, 0.0) >= amount - _ROUNDING for name, amount in asked.items())


def _offer(node: Node) -> Request:
    return {"CPU": node.cpus, "GPU": node.gpus, "memory": node.memory}


def _words(amounts: Request) -> str:
    gib = amounts.get("memory", 0.0) / 2**30
    memory = f" and {gib:.1f} GiB" if gib else ""
    return f"{amounts.get('CPU', 0.0):.3g} CPUs, {amounts.get('GPU', 0.0):.3g} GPUs{memory}"


def _alike(asked: Request) -> Callable[[Request], bool]:
    """Whether a request is for as much as that, to what Ray rounds."""

    def alike(other: Request) -> bool:
        names = {*asked, *other} & {"CPU", "GPU"}
        return all(abs(asked.get(name, 0.0) - other.get(name, 0.0)) < 2 * _ROUNDING for name in names)

    return alike


def _cluster(head: str) -> Cluster:
    """head: the address of the GCS."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined] - it is Cython's
    from ray.autoscaler.v2.sdk import get_cluster_resource_state
    from ray.core.generated.autoscaler_pb2 import NodeStatus  # type: ignore[attr-defined] - made by protoc

    state = get_cluster_resource_state(GcsClient(head))
    pending: list[Request] = [dict(one.request.resources_bundle) for one in state.pending_resource_requests]
    nodes, leaving = [], {}
    for one in state.node_states:
        offer = dict(one.total_resources)
        node = Node(offer.get("CPU", 0.0), offer.get("GPU", 0.0), offer.get("memory", 0.0), one.node_id.hex())
        if one.status == NodeStatus.DRAINING:
            leaving[node.id] = node
        elif offer:
            nodes.append(node)
    return Cluster(pending, nodes, leaving)
