"""Ray Data's own actors, of which a cluster has one each: on the head, which lasts as long as the cluster does.

Ray Data (2.60) binds them to the node of the driver that needs them first, and all that come later share them. When
that node dies they do, and with them the runs that ask them, wherever those are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from .nodes import alive_nodes, on_nodes, own_node

_INTERNAL = "ray.data._internal"
MAKERS = (
    (f"{_INTERNAL}.execution.node_trackers.actor_location", "get_or_create_actor_location_tracker"),
    (f"{_INTERNAL}.cluster_autoscaler.default_autoscaling_coordinator", "get_or_create_autoscaling_coordinator"),
    (f"{_INTERNAL}.stats", "get_or_create_stats_actor"),
)
"""The functions by which a run comes to those that it asks, by module and name: each makes what isn't there yet, on the
node where it is called. Another version of Ray may have others."""


def keep_on_head() -> None:
    """Has them made there, where this driver is on another node, before Ray Data makes them here. Ray is up."""
    here = own_node()
    elsewhere = [node for node in alive_nodes() if node.is_head and node.id != here]
    if elsewhere:
        on_nodes(make, lambda _: (MAKERS,), elsewhere)


def make(makers: Sequence[tuple[str, str]]) -> None:
    """Makes here those that aren't there yet."""
    for maker in known(makers):
        maker()


def known(makers: Sequence[tuple[str, str]]) -> Iterator[Callable[[], Any]]:
    """Those that this version of Ray has."""
    for module, name in makers:
        with suppress(ImportError, AttributeError):
            yield getattr(import_module(module), name)
