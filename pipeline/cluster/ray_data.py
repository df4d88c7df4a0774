"""Ray Data's own actors, of which a cluster has one each: on the head, which lasts as long as the cluster does.

Ray Data (2.60) binds them to the node of the driver that needs them first, and all that come later share them. Once
that node is gone they are started nowhere again, and every run on the cluster waits for them for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from typing import Any

from .nodes import alive_nodes, on_nodes

_PATIENCE = 60.0
"""Seconds within which they have to answer: they may have to be started."""
_FREED = 10.0
"""Seconds within which the name of one that was killed is free."""

_INTERNAL = "ray.data._internal"
_MAKERS = (
    (f"{_INTERNAL}.execution.node_trackers.actor_location", "get_or_create_actor_location_tracker"),
    (f"{_INTERNAL}.cluster_autoscaler.default_autoscaling_coordinator", "get_or_create_autoscaling_coordinator"),
    (f"{_INTERNAL}.stats", "get_or_create_stats_actor"),
)
"""The functions by which a run comes to those that it asks: they make what isn't there on the node where they are
called. Another version of Ray may have others."""


def keep_on_head() -> None:
    """Makes them on the head, before Ray Data makes them beside a driver that is elsewhere, and anew where they don't
    answer. Ray is up; once for each job."""
    import ray

    context = ray.get_runtime_context()
    _keep(context.get_job_id(), context.get_node_id())


@lru_cache(maxsize=1)
def _keep(job: str, here: str) -> None:
    from ray.util import list_named_actors

    for head in [node for node in alive_nodes() if node.is_head]:
        if head.id != here:
            on_nodes(provide, lambda _: (_MAKERS, _PATIENCE), [head])
        elif list_named_actors(all_namespaces=True):
            provide(_MAKERS, _PATIENCE)


def provide(makers: Sequence[tuple[str, str]], patience: float) -> None:
    """Has each of them answer within so many seconds; one that doesn't, being bound to a node that is gone, is made
    anew, here."""
    import ray

    known = [(make, make()) for make in _known(makers)]
    asked = [actor.__ray_ready__.remote() for _, actor in known]
    if asked:
        ray.wait(asked, num_returns=len(asked), timeout=patience)
    for (make, actor), reference in zip(known, asked, strict=True):
        if not _answers(reference):
            ray.kill(actor)
            until = time.monotonic() + _FREED
            while make() == actor and time.monotonic() < until:
                time.sleep(0.1)


def _known(makers: Sequence[tuple[str, str]]) -> Iterator[Callable[[], Any]]:
    for module, name in makers:
        with suppress(ImportError, AttributeError):
            yield getattr(import_module(module), name)


def _answers(reference: Any) -> bool:
    import ray
    from ray.exceptions import RayError

    try:
        ray.get(reference, timeout=0)
    except RayError:
        return False
    return True
