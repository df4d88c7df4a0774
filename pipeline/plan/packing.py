"""Packing: whether the workers that a run can't do without find room on the cluster's nodes, all at the same time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..cluster.size import ClusterSize, Node

_ROUNDING = 1e-6


class Demand(NamedTuple):
    """What one worker asks of one node; memory in bytes, num_gpus whole or a part of one."""

    num_cpus: float
    num_gpus: float
    memory: float


class NoRoom(NamedTuple):
    """worker: its place among those that were to be packed. lacking: for each node what it has too little of, in the
    order of how easily the others could do with less: no GPU first."""

    worker: int
    lacking: list[frozenset[str]]


class _Room:
    """What is left of one node. What no node has, an autoscaler is left to bring: then there is enough of it."""

    def __init__(self, node: Node, size: ClusterSize) -> None:
        self.cpus = node.cpus if size.cpus else math.inf
        self.memory = node.memory if size.memory else math.inf
        self.gpus = [1.0] * int(node.gpus)
        self._bound = bool(size.gpus)

    def lacks(self, worker: Demand) -> frozenset[str]:
        too_few = {
            "num_cpus": self.cpus < worker.num_cpus - _ROUNDING,
            "num_gpus": self._bound and len(self._free(worker)) < _gpus(worker),
            "memory": self.memory < worker.memory,
        }
        return frozenset(name for name, lacks in too_few.items() if lacks)

    def take(self, worker: Demand) -> None:
        """Several GPUs, or a part of one, of which as much is gone already as may be: as Ray does."""
        self.cpus -= worker.num_cpus
        self.memory -= worker.memory
        for gpu in sorted(self._free(worker), key=lambda gpu: self.gpus[gpu])[: _gpus(worker)]:
            self.gpus[gpu] -= min(worker.num_gpus, 1.0)

    def _free(self, worker: Demand) -> list[int]:
        return [gpu for gpu, rest in enumerate(self.gpus) if rest >= min(worker.num_gpus, 1.0) - _ROUNDING]


def no_room(workers: Sequence[Demand], size: ClusterSize, scattered: bool) -> NoRoom | None:
    """The first worker that finds no room; None where all do.

    scattered: the small ones first, each on the node with the most left, which leaves least for the large ones. Who
    finds room so needn't care how Ray places them. Otherwise the large ones first, each where it leaves the least.
    """
    rooms = [_Room(node, size) for node in size.nodes]
    sign = -1 if scattered else 1

    def share(worker: Demand) -> float:
        there = ((worker.num_cpus, size.cpus), (worker.num_gpus, size.gpus), (worker.memory, size.memory))
        return max(asked / total if total else 0.0 for asked, total in there)

    def place(room: _Room, worker: Demand) -> tuple[float, ...]:
        """Ray keeps nodes with GPUs for those who want some."""
        return (sign * sum(room.gpus) if worker.num_gpus else bool(room.gpus), sign * room.cpus, sign * room.memory)

    for index in sorted(range(len(workers)), key=lambda index: -sign * share(workers[index])):
        worker = workers[index]
        fitting = [room for room in rooms if not room.lacks(worker)]
        if not fitting:
            lacking = {room.lacks(worker) for room in rooms}
            return NoRoom(index, sorted(lacking, key=lambda names: ("num_gpus" in names, len(names), sorted(names))))
        min(fitting, key=lambda room: place(room, worker)).take(worker)
    return None


def _gpus(worker: Demand) -> int:
    """How many GPUs it has a hand on."""
    return math.ceil(worker.num_gpus - _ROUNDING)
