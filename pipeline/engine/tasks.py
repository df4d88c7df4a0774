"""Tasks: a function called on many things, each in a task of Ray Data; what it gives comes back as it comes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..cluster.alike import check_nodes
from ..cluster.raylet import raylet_watched
from ..cluster.session import EngineError, start_ray
from .stream import MOST_BLOCKS, cause


def run_tasks(
    work: Callable[[Any], dict[str, Any]], items: Sequence[Any], local_paths: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """What `work` gives for each item, as JSON has it, in any order. Starts Ray where it isn't running.

    local_paths: of this machine's file system, which every worker has to see. Raises EngineError with the cause where a
    call raises.
    """
    start_ray()
    import ray.data
    from ray.exceptions import RayError

    with raylet_watched():
        check_nodes(local_paths)
        # A block of input is the number of an item, so that the items are sent to each worker once.
        numbers = ray.data.range(len(items), override_num_blocks=min(max(1, len(items)), MOST_BLOCKS))
        results = numbers.map_batches(_Calls(work, items).call, batch_size=1, batch_format="numpy")
        try:
            for row in results.iter_rows():
                yield json.loads(row["result"])
        except RayError as error:
            raise EngineError(cause(error)) from None


@dataclass(frozen=True)
class _Calls:
    """The work on items by their numbers, a batch of one at a time."""

    work: Callable[[Any], dict[str, Any]]
    items: Sequence[Any]

    def call(self, batch: Any) -> Iterator[dict[str, list[str]]]:
        """By a generator, since Ray Data hides the errors of functions."""
        for number in batch["id"]:
            yield {"result": [json.dumps(self.work(self.items[int(number)]))]}
