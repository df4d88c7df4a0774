"""Batches through Ray Data: the same as those for torch, made by actors, in order.

def train_loop(config):                                      # of Ray Train, in each worker
    context = ray.train.get_context()
    batches = RayBatches("train.yaml", context.get_world_rank(), context.get_world_size())
    for batch in batches.dataset(steps=10_000).iter_torch_batches(batch_size=batches.size):
        ...
        state = batches.state_after(batch)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .batch import Batch
from .masking import Masked
from .rank import Rank
from .recipe import TrainingRecipe

if TYPE_CHECKING:
    import ray.data


_STEPS = 16
"""Steps whose batches an actor makes one after another."""


class RayBatches:
    """The batches of one rank; arguments, states and errors as of `Rank`. size: samples of a batch of this rank."""

    def __init__(self, recipe: TrainingRecipe | str | Path, rank: int = 0, world_size: int = 1) -> None:
        self._run = Rank(recipe, rank, world_size)
        self.size = self._run.size

    def dataset(self, steps: int, actors: int = 1) -> ray.data.Dataset:
        """The batches of so many steps from where the run is, one behind the other. A row is a sample: `positions`,
        `inputs.ids`, `targets.labels` and so on, as of `masking.Masked`, `arrays.pixels`, and `skipped`.

        actors: that make them, of a CPU each; the numbers of the steps, which they are made from, need one more.
        """
        import ray.data

        numbers = ray.data.range(steps, override_num_blocks=-(-steps // _STEPS))
        made = numbers.map_batches(
            _Maker,
            fn_constructor_args=(self._run,),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=actors),
        )
        made.context.execution_options.preserve_order = True
        return made

    def state_after(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return self._run.state_after(batch)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._run.resume(state)


class _Maker:
    """Makes batches by the numbers of their steps."""

    def __init__(self, run: Rank) -> None:
        self._run = run

    def __call__(self, numbers: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        for step in numbers["id"].tolist():
            yield as_columns(self._run.batch(step))


def as_columns(batch: Batch) -> dict[str, np.ndarray]:
    sides: Mapping[str, Masked] = {"inputs": batch.inputs, "targets": batch.targets}
    columns = {
        f"{side}.{name}": value
        for side, masked in sides.items()
        for name, value in vars(masked).items()
        if value is not None
    }
    arrays = {f"arrays.{name}": array for name, array in batch.arrays.items()}
    return {"positions": batch.positions, "skipped": batch.skipped, **columns, **arrays}
