"""The rows of a dataset for Ray Data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from ..corpus.units import Unit
from .reader import ColumnReader, DatasetReader

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data


def ray_rows(reader: DatasetReader, modalities: Sequence[str], views: Collection[int] | None) -> ray.data.Dataset:
    """See `Dataset.ray`. A block of input is the number of a piece of work, so that nothing is read or sent
    beforehand: a unit, or those that lie together in a merged shard."""
    import ray.data

    units, columns = reader.units(modalities), reader.columns
    together = groupby(units, lambda unit: columns.token_path(unit, modalities[0]))
    pieces = [list(own) for _, own in together]
    numbers = ray.data.range(len(pieces), override_num_blocks=max(1, len(pieces)))
    tables = _UnitTables(reader, pieces, modalities, views).tables
    return numbers.map_batches(tables, batch_size=1, batch_format="numpy")


class _UnitTables:
    """Reads pieces of work by their numbers, as Arrow tables of joined rows, one for each unit."""

    def __init__(
        self,
        reader: DatasetReader,
        pieces: Sequence[Sequence[Unit]],
        modalities: Sequence[str],
        views: Collection[int] | None,
    ) -> None:
        self._reader, self._pieces, self._modalities, self._views = reader, pieces, modalities, views

    def tables(self, batch: Any) -> Iterator[pa.Table]:
        columns = self._reader.columns_in_order(self._modalities)
        for number in batch["id"]:
            for unit in self._pieces[int(number)]:
                yield self._table(columns, unit)

    def _table(self, columns: ColumnReader, unit: Unit) -> pa.Table:
        """The modalities' tables side by side: their tokens stay the Arrow arrays that they are."""
        joined = columns.joined(unit, self._modalities)
        if self._views is None:
            return joined
        return joined.filter(np.isin(joined["view"].to_numpy(), list(self._views)))
