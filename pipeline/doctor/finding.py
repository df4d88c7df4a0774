"""What checks find, on one machine or on many that are told together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from ..storage.store import StorageError

NAMED = 3
"""Nodes that a row names; of more it tells how many."""


class Level(IntEnum):
    OK = 0
    WARNING = 1
    FAILED = 2


@dataclass(frozen=True)
class Finding:
    """What a check found. check: its name. way_out: what to do about it. measure: of what differs from machine to
    machine, the less the worse; those that are otherwise alike are told as one, in the words of the worst."""

    check: str
    level: Level
    said: str
    way_out: str = ""
    measure: float | None = None


def ok(check: str, said: str, measure: float | None = None) -> Finding:
    return Finding(check, Level.OK, said, measure=measure)


def warning(check: str, said: str, way_out: str, measure: float | None = None) -> Finding:
    return Finding(check, Level.WARNING, said, way_out, measure)


def failed(check: str, said: str, way_out: str = "", measure: float | None = None) -> Finding:
    return Finding(check, Level.FAILED, said, way_out, measure)


def failed_by(check: str, error: Exception) -> Finding:
    """Of an error that was written for the user."""
    if isinstance(error, StorageError):
        return failed(check, f"{error.url}: {error.what}", error.way_out)
    return failed(check, " ".join(str(error).split()))


@dataclass(frozen=True)
class Row:
    """A finding, and the nodes that share it, of so many; () and 0 for what isn't a node's."""

    finding: Finding
    nodes: tuple[str, ...] = ()
    of: int = 0

    @property
    def where(self) -> str:
        """98 of 100 nodes; of a few that differ their names."""
        if not self.of:
            return ""
        if len(self.nodes) == self.of:
            return "1 node" if self.of == 1 else f"all {self.of} nodes"
        more = f" and {len(self.nodes) - NAMED} more" if len(self.nodes) > NAMED else ""
        return f"{len(self.nodes)} of {self.of} nodes: {', '.join(self.nodes[:NAMED])}{more}"


def grouped(by_node: Mapping[str, Sequence[Finding]]) -> list[Row]:
    """One row for all nodes that found the same, by the checks in their order, the most frequent first."""
    alike: dict[tuple[str, Level, str, str], list[tuple[str, Finding]]] = {}
    order: dict[str, int] = {}
    for node, findings in by_node.items():
        for one in findings:
            order.setdefault(one.check, len(order))
            key = one.check, one.level, one.way_out, "" if one.measure is not None else one.said
            alike.setdefault(key, []).append((node, one))
    rows = []
    for found in alike.values():
        worst = min((one for _, one in found), key=lambda one: one.measure or 0.0)
        rows.append(Row(worst, tuple(node for node, _ in found), len(by_node)))
    return sorted(rows, key=lambda row: (order[row.finding.check], -len(row.nodes)))
