"""What a driver holds of executions of Ray Data. Where a new version of Ray fails these, look where its memory goes."""

from __future__ import annotations

import time

import pytest
from tokenloom.pipeline.cluster import driver_memory
from tokenloom.pipeline.cluster.driver_memory import WAITING, WAITING_PER_WORKER, BoundedQueues, ForgetBlocks
from tokenloom.pipeline.cluster.session import start_ray
from tokenloom.pipeline.engine.tasks import run_tasks

BLOCKS = 20


@pytest.fixture
def kept(ray_session, monkeypatch):
    """Has BLOCKS blocks made; of how many statistics are kept in each operator."""
    from ray.data._internal.execution.operators.map_operator import MapOperator

    executors, begin = [], ForgetBlocks.before_execution_starts
    seen = lambda self, executor: executors.append(executor) or begin(self, executor)  # noqa: E731
    monkeypatch.setattr(ForgetBlocks, "before_execution_starts", seen)

    def run() -> set[int]:
        executors.clear()
        made = list(run_tasks(dict, [[("number", number)] for number in range(BLOCKS)], []))
        assert sorted(one["number"] for one in made) == [*range(BLOCKS)]
        (executor,) = executors
        return {len(one._output_blocks_stats) for one in executor._topology if isinstance(one, MapOperator)}

    return run


def test_an_execution_keeps_no_statistics_of_its_blocks(kept):
    assert kept() == {0}


def test_where_ray_has_no_such_list_an_execution_goes_on(kept, monkeypatch):
    monkeypatch.setattr(driver_memory, "KEPT", "_some_other_list")
    assert kept() == {BLOCKS}


def test_reading_runs_ahead_by_so_many_blocks_and_no_more(ray_session, monkeypatch):
    import ray.data

    class Slow:
        """A worker that takes longer than reading for it; one that is defined here Ray sends to its process whole."""

        def __call__(self, block):
            time.sleep(0.01)
            return block

    start_ray()
    waiting, bound = [], BoundedQueues.max_task_output_bytes_to_read

    def seen(self, op):
        if op.output_dependencies and op.input_dependencies:
            waiting.append(self._topology[op].total_enqueued_output_blocks())
        return bound(self, op)

    monkeypatch.setattr(BoundedQueues, "max_task_output_bytes_to_read", seen)
    numbers = ray.data.range(300, override_num_blocks=1).map_batches(
        lambda batch: ({"id": [one]} for one in batch["id"]), num_cpus=0, concurrency=1
    )
    slow = numbers.map_batches(Slow, concurrency=1, batch_size=1)
    assert len(list(slow.iter_rows())) == 300
    assert WAITING <= max(waiting) <= 2 * (WAITING + WAITING_PER_WORKER)
