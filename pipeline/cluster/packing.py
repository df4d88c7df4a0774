"""Packing: whether workers find room on the cluster's nodes, all at the same time, and on which of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .size import ClusterSize, Node

_ROUNDING = 1e-6
_DEAD_ENDS = 100
"""After so many the search for places is given up."""


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
    """What is left of one node. What no node has, an autoscaler is left to bring, where there is one: then there is
    enough of it. Memory that is not known is enough, too."""

    def __init__(self, node: Node, size: ClusterSize) -> None:
        self.cpus = node.cpus if size.cpus or not size.scales else math.inf
        self.memory = node.memory if size.memory else math.inf
        self.gpus = [1.0] * int(node.gpus)
        self._bound = bool(size.gpus) or not size.scales

    @property
    def left(self) -> tuple[object, ...]:
        """Rooms of which as much is left are one choice, and no two."""
        return round(self.cpus, 6), self.memory, *sorted(round(rest, 6) for rest in self.gpus)

    def lacks(self, worker: Demand) -> frozenset[str]:
        too_few = {
            "num_cpus": self.cpus < worker.num_cpus - _ROUNDING,
            "num_gpus": self._bound and len(self._free(worker)) < _gpus(worker),
            "memory": self.memory < worker.memory,
        }
        return frozenset(name for name, lacks in too_few.items() if lacks)

    def take(self, worker: Demand) -> list[int]:
        """Several GPUs, or a part of one, of which as much is gone already as may be, as Ray does: which of them."""
        gpus = sorted(self._free(worker), key=lambda gpu: self.gpus[gpu])[: _gpus(worker)]
        self._add(worker, gpus, -1)
        return gpus

    def give_back(self, worker: Demand, gpus: Sequence[int]) -> None:
        self._add(worker, gpus, 1)

    def _add(self, worker: Demand, gpus: Sequence[int], sign: int) -> None:
        self.cpus += sign * worker.num_cpus
        self.memory += sign * worker.memory
        for gpu in gpus:
            self.gpus[gpu] += sign * min(worker.num_gpus, 1.0)

    def _free(self, worker: Demand) -> list[int]:
        return [gpu for gpu, rest in enumerate(self.gpus) if rest >= min(worker.num_gpus, 1.0) - _ROUNDING]


@dataclass(frozen=True)
class Packing:
    """nodes: for each worker the place of its node among the cluster's; rooms: what is left of these."""

    nodes: list[int]
    rooms: list[_Room]

    def add(self, worker: Demand) -> bool:
        """Whether there is room for one more, which it has then."""
        room = next(iter(_best_first(worker, self.rooms)), None)
        if room is None:
            return False
        room.take(worker)
        return True


def pack(workers: Sequence[Demand], size: ClusterSize) -> Packing | NoRoom:
    """A node for every worker: the large ones first, each where it leaves the least, else where there is room, too."""
    rooms = [_Room(node, size) for node in size.nodes]
    order = sorted(range(len(workers)), key=lambda index: -_share(workers[index], size))
    taken: list[tuple[_Room, list[int]]] = []
    open_choices: list[Iterator[_Room]] = []
    first: NoRoom | None = None
    dead_ends = 0
    while len(taken) < len(order):
        worker = workers[order[len(taken)]]
        if len(open_choices) == len(taken):
            open_choices.append(iter(_best_first(worker, rooms)))
        room = next(open_choices[-1], None)
        if room is not None:
            taken.append((room, room.take(worker)))
            continue
        first, dead_ends = first or _no_room(order[len(taken)], worker, rooms), dead_ends + 1
        if not taken or dead_ends > _DEAD_ENDS:
            return first
        open_choices.pop()
        room, gpus = taken.pop()
        room.give_back(workers[order[len(taken)]], gpus)
    found = dict(zip(order, (rooms.index(room) for room, _ in taken), strict=True))
    return Packing([found[index] for index in range(len(workers))], rooms)


def _best_first(worker: Demand, rooms: Sequence[_Room]) -> list[_Room]:
    """The rooms for a worker, one of each size, those first of which least is left. Nodes with GPUs are kept for those
    who want some, as Ray does."""

    def rank(room: _Room) -> tuple[float, ...]:
        return sum(room.gpus) if worker.num_gpus else bool(room.gpus), room.cpus, room.memory

    fitting = {room.left: room for room in reversed(rooms) if not room.lacks(worker)}
    return sorted(fitting.values(), key=rank)


def _share(worker: Demand, size: ClusterSize) -> float:
    """The largest of its shares of all that there is."""
    there = ((worker.num_cpus, size.cpus), (worker.num_gpus, size.gpus), (worker.memory, size.memory))
    return max(asked / total if total else 0.0 for asked, total in there)


def _no_room(index: int, worker: Demand, rooms: Sequence[_Room]) -> NoRoom:
    lacking = {room.lacks(worker) for room in rooms}
    return NoRoom(index, sorted(lacking, key=lambda names: ("num_gpus" in names, len(names), sorted(names))))


def _gpus(worker: Demand) -> int:
    """How many GPUs it has a hand on."""
    return math.ceil(worker.num_gpus - _ROUNDING)
