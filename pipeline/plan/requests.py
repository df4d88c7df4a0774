"""What a run will ask of object storage, and what that costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..corpus.taken import Shard
from .plan import Plan

WRITE, READ = 0.005, 0.0004
"""Dollars for a thousand by the list of S3 standard (us-east-1): of PUT and LIST; of GET and HEAD. A DELETE is free."""

_MARKS = 2
"""Writes for each unit in each stage: a LIST and a PUT, by which units that kill their process are found."""

_READ_SIZE = 4 * 2**20
"""By which a file of many samples is read."""


@dataclass(frozen=True)
class Requests:
    """writes: PUT and LIST, which cost alike; reads: GET and HEAD, which cost alike."""

    writes: int
    reads: int

    @property
    def dollars(self) -> float:
        return (self.writes * WRITE + self.reads * READ) / 1000


def requests_left(plan: Plan, units: int, stages: int) -> Requests:
    """Of what is left, without fitting, and without samples that fail. units: that it comes to."""
    writes = reads = 0
    if "://" in plan.recipe.output:
        kept = sum(len(plan.graph.cards[name].kept) for name in plan.todo)
        writes = units * (kept + _MARKS * stages)
    pieces = plan.works.pieces
    reads = sum(_reads(shard, pieces[shard.id]) for shard in plan.works.shards)
    return Requests(writes, reads)


def least_units(plan: Plan) -> int:
    """How many units what is left comes to at least, of samples whose number isn't known."""
    return sum(max(1, math.ceil(shard.size / plan.recipe.units.bytes)) for shard in plan.works.shards)


def _reads(shard: Shard, pieces: int) -> int:
    """About; for each piece of work a file of many samples is asked for its size, and of Parquet the end is read."""
    if "://" not in shard.root:
        return 0
    if shard.format == "folder":
        return len(shard.files)
    first = 2 if shard.format == "parquet" else 1
    return pieces * first + max(pieces, math.ceil(shard.size / _READ_SIZE))
