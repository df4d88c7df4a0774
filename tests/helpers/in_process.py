"""Whole runs in this process and without Ray: their stages are called one after another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pytest
from tokenloom.pipeline import retry as retrying
from tokenloom.pipeline import run as running
from tokenloom.pipeline.cluster.size import ClusterSize, Node
from tokenloom.pipeline.engine.config import StageConfig
from tokenloom.pipeline.engine.payload import UnitPayload
from tokenloom.pipeline.engine.stage import StageWorker
from tokenloom.pipeline.engine.stream import ReaderConfig, UnitResult, read_units
from tokenloom.pipeline.engine.tally import Tally
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import Recipe
from tokenloom.pipeline.plan.worklist import Work


def stream_here(works: Sequence[Work], reader: ReaderConfig, stages: Sequence[StageConfig]) -> Iterator[UnitResult]:
    """As `engine.stream.stream`, without Ray."""
    workers = [StageWorker(config) for config in stages]
    block = pa.table({"work": [json.dumps([asdict(work) for work in works])]})
    for table in read_units(block, reader):
        payload = next(UnitPayload.from_table(table))
        for worker in workers:
            payload = next(UnitPayload.from_table(worker.process(payload).to_table()))
        yield UnitResult(payload.unit, payload.done, payload.bytes, len(payload.rejected), payload.decodes)


@contextmanager
def without_ray() -> Iterator[None]:
    """Runs that are begun meanwhile need no Ray."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "stream", stream_here)
        patch.setattr(running, "cluster_size", lambda: ClusterSize((Node(2),)))
        patch.setattr(running, "raylet_watched", nullcontext)
        patch.setattr(running, "check_shared", lambda paths: None)
        for module in (running, retrying):
            patch.setattr(module, "start_ray", lambda: None)
        yield


def weave(recipe: Recipe, replacing: Sequence[str] = (), **more: Any) -> Tally:
    with without_ray():
        return running.execute(make_plan(recipe, replacing), **more)
