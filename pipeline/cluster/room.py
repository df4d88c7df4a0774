"""Room that an autoscaler has to make: asked for before a run begins, for all of its least workers together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .waiting import PATIENCE, Request

_UNABLE = 20.0
"""Seconds on end for which it has to say that it can't, to be believed."""

_EVERY = 1


def room_made(workers: Sequence[Request], tell: Callable[[], None]) -> bool:
    """Has the autoscaler bring nodes that hold all these workers at the same time, and waits for them; False once it is
    known that it can't. They are asked for as one group, so that shares of a GPU get one node, and a group for which
    there are too few nodes at the most is refused as a whole. `tell` is called once, when that lasts. Ray is up."""
    import ray
    from ray.util import placement_group, remove_placement_group

    head = ray.get_runtime_context().gcs_address
    group = placement_group([dict(worker) for worker in workers], strategy="PACK")
    waited = unable = 0.0
    try:
        while not group.wait(_EVERY):
            waited += _EVERY
            if waited - _EVERY < PATIENCE <= waited:
                tell()
            unable = 0.0 if _may_come(head, group.id.hex()) else unable + _EVERY
            if unable >= _UNABLE:
                return False
    finally:
        remove_placement_group(group)
    return True


def _may_come(head: str, group: str) -> bool:
    """Whether the autoscaler hasn't said that no nodes that it could start would hold the group; where nodes have types
    and there is no autoscaler, Ray's monitor says it in its place. The first version doesn't say."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined] - it is Cython's
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined] - protoc's

    state = GetClusterStatusReply.FromString(GcsClient(head).get_cluster_status()).autoscaling_state
    return not any(group in one.details for one in state.infeasible_gang_resource_requests)
