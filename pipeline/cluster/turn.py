"""Whose turn it is: workers of a job that have no place yet, and the jobs that have what they wait for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_NAME = "job_submission_id"
"""What Ray's Jobs API calls a job, in its metadata."""


@dataclass(frozen=True)
class Turn:
    """waits: a job has workers that wait for a place, and none that has one. others: the jobs whose workers have a
    place, by their names in Ray's Jobs API, or Ray's numbers."""

    waits: bool
    others: Sequence[str]


def turn_of(job: str, head: str) -> Turn:
    """job: by Ray's id, in hex. head: the address of the GCS, which is asked."""
    from ray._raylet import GcsClientOptions, GlobalStateAccessor  # type: ignore[attr-defined] - they are Cython's
    from ray.core.generated.gcs_pb2 import ActorTableData, JobTableData  # type: ignore[attr-defined] - made by protoc

    accessor = GlobalStateAccessor(
        GcsClientOptions.create(head, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
    )
    if not accessor.connect():
        return Turn(False, [])
    actors = [ActorTableData.FromString(one) for one in accessor.get_actor_table(None, None)]
    jobs = [JobTableData.FromString(one) for one in accessor.get_job_table()]
    workers = [actor for actor in actors if any(amount > 0 for amount in actor.required_resources.values())]
    at_work = {actor.job_id.hex() for actor in workers if actor.state == ActorTableData.ALIVE}
    waiting = {actor.job_id.hex() for actor in workers if actor.state == ActorTableData.PENDING_CREATION}
    named = {one.job_id.hex(): one.config.metadata.get(_NAME) or one.job_id.hex() for one in jobs}
    return Turn(job in waiting - at_work, sorted(named.get(id, id) for id in at_work - {job}))
