"""What a driver holds of an execution of Ray Data (2.60): neither more with every unit that went by, nor all that can
be read ahead. The blocks of small units lie in its own memory, not in the object store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray.data import DataContext
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
)
from ray.data._internal.execution.backpressure_policy.backpressure_policy import BackpressurePolicy
from ray.data._internal.execution.execution_callback import ExecutionCallback

from .takes_nothing import TakesNothing

if TYPE_CHECKING:
    from ray.data._internal.execution.interfaces import PhysicalOperator
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

KEPT = "_output_blocks_stats"
"""The list of an operator that is extended by every block that it gives, and read for `Dataset.stats()`."""

WAITING, WAITING_PER_WORKER = 16, 4
"""Blocks that may wait for the workers of a stage, and as many more for each that it has: enough that none idles."""


class ForgetBlocks(ExecutionCallback):
    """Has an execution keep no statistics of blocks, for which nobody asks, until it ends. Where operators have no such
    list, they keep what they keep."""

    def before_execution_starts(self, executor: StreamingExecutor) -> None:
        for operator in executor._topology or ():
            if isinstance(getattr(operator, KEPT, None), list):
                setattr(operator, KEPT, TakesNothing())


class BoundedQueues(BackpressurePolicy):
    """Bounds the blocks that wait between operators by their number. Ray Data bounds their bytes alone, by shares of
    the object store, which small units never fill."""

    def max_task_output_bytes_to_read(self, op: PhysicalOperator) -> int | None:
        """0 where so much waits already that workers had better not go on; None for as much as there is."""
        if not op.output_dependencies:
            return None  # results, which the driver takes at once
        pools = [pool for after in op.output_dependencies for pool in after.get_autoscaling_actor_pools()]
        most = WAITING + WAITING_PER_WORKER * sum(pool.num_running_actors() for pool in pools)
        return 0 if self._topology[op].total_enqueued_output_blocks() >= most else None


def hold_little(context: DataContext) -> None:
    """Has the executions of this context hold little. Raises AttributeError where another version of Ray has no place
    for that."""
    if ForgetBlocks not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(ForgetBlocks)
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*ENABLED_BACKPRESSURE_POLICIES, BoundedQueues])
