"""The rows of a dataset for Ray Data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..corpus.units import Unit
from .reader import DatasetReader

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data


def ray_rows(reader: DatasetReader, modalities: Sequence[str], views: Collection[int] | None) -> ray.data.Dataset:
    """See `Dataset.ray`. A block of input is the number of a unit, so that nothing is read or sent beforehand."""
    import ray.data

    units = reader.units(modalities)
    numbers = ray.data.range(len(units), override_num_blocks=max(1, len(units)))
    return numbers.map_batches(_UnitTables(reader, units, modalities, views).tables, batch_size=1, batch_format="numpy")


class _UnitTables:
    """Reads units by their numbers, as Arrow tables of joined rows."""

    def __init__(
        self, reader: DatasetReader, units: Sequence[Unit], modalities: Sequence[str], views: Collection[int] | None
    ) -> None:
        self._reader, self._units, self._modalities, self._views = reader, units, modalities, views

    def tables(self, batch: Any) -> Iterator[pa.Table]:
        for number in batch["id"]:
            yield self._table(self._units[int(number)])

    def _table(self, unit: Unit) -> pa.Table:
        """The modalities' tables side by side: their tokens stay the Arrow arrays that they are."""
        joined = self._reader.columns.joined(unit, self._modalities)
        if self._views is None:
            return joined
        return joined.filter(np.isin(joined["view"].to_numpy(), list(self._views)))
