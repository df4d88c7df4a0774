"""Whether every machine of a cluster has what a run needs: the paths that this one sees, and the same versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .machine import missing, versions
from .nodes import NodeError, NodeHere, alive_nodes, on_nodes, own_node
from .session import EngineError

_OWN = "tokenloom"


class VersionsError(ValueError):
    """A cluster of several versions, which would mix what they make; the message names the node."""


def check_nodes(paths: Sequence[str], plugins: Sequence[str] = ()) -> None:
    """Raises EngineError where a node that has CPUs lacks one of the paths, which are there on this one, and
    VersionsError where it has another version of tokenloom or of a plugin's distribution. Ray is up.

    A node that is gone, or goes meanwhile, lacks nothing: nothing is done there.
    """
    nodes = [node for node in alive_nodes() if node.cpus]
    if {node.id for node in nodes} <= {own_node()}:
        return
    names = [_OWN, *plugins]
    here = versions(names)
    for node, found in _answers(versions, names, nodes):
        for name in names:
            if found[name] != here[name]:
                raise VersionsError(
                    f"{_named(node, nodes)}, has {name} {found[name] or 'not at all'}, "
                    f"and {here[name]} is on the machine where this was started: install {name}=={here[name]} on every "
                    f"machine; `tokenloom doctor` tells of all of them"
                )
    for node, lacking in _answers(missing, paths, nodes) if paths else ():
        if lacking:
            raise EngineError(
                f"{lacking[0]}: not seen by {_named(node, nodes)}; "
                f"give a URL of object storage, or a folder that all nodes mount"
            )


def _answers(
    work: Callable[[Sequence[str]], Any], names: Sequence[str], nodes: Sequence[NodeHere]
) -> Iterator[tuple[NodeHere, Any]]:
    """Of the nodes that aren't gone. Raises EngineError for one that can't be asked."""
    for node, found in on_nodes(work, lambda node: (list(names),), nodes).items():
        if not isinstance(found, NodeError):
            yield node, found
        elif not found.gone:
            raise EngineError(f"{_named(node, nodes)}, can't be asked: {found.said}")


def _named(node: NodeHere, nodes: Sequence[NodeHere]) -> str:
    """nodes: that take part in the work."""
    return f"{node.name}, " + (f"one of the cluster's {len(nodes)} nodes" if len(nodes) > 1 else "which does the work")
