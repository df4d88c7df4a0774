"""Ray Data's own actors, of which a cluster has one each: on the head, which lasts as long as the cluster does.

Ray Data (2.60) binds them to the node of the driver that needs them first, and all that come later share them. When
that node dies they do, and with them the runs that ask them, wherever those are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from .nodes import alive_nodes, on_nodes, own_node


def keep_on_head() -> None:
    """Has them made there, where this driver is on another node, before Ray Data makes them here. Ray is up."""
    here = own_node()
    elsewhere = [node for node in alive_nodes() if node.is_head and node.id != here]
    if elsewhere:
        on_nodes(make, lambda _: (), elsewhere)


def make() -> None:
    """Makes those here that aren't there yet."""
    for maker in makers():
        maker()


def makers() -> Sequence[Callable[[], Any]]:
    """The functions by which a run comes to those that it asks: each makes what isn't there yet, on the node where it
    is called. None where this version of Ray has others."""
    with suppress(ImportError):
        from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
            get_or_create_autoscaling_coordinator,
        )
        from ray.data._internal.execution.node_trackers.actor_location import get_or_create_actor_location_tracker
        from ray.data._internal.stats import get_or_create_stats_actor

        return (
            get_or_create_actor_location_tracker,
            get_or_create_autoscaling_coordinator,
            get_or_create_stats_actor,
        )
    return ()
