"""The rows of a dataset for Ray Data."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..corpus.units import Unit
from .layout import token_path
from .reader import misaligned

if TYPE_CHECKING:
    import pyarrow as pa
    import ray.data

    from .dataset import Dataset


def ray_rows(dataset: Dataset, modalities: Sequence[str], views: Collection[int] | None) -> ray.data.Dataset:
    """See `Dataset.ray`. A block of input is the number of a unit, so that nothing is read or sent beforehand."""
    import ray.data

    units = dataset.units(*modalities)
    numbers = ray.data.range(len(units), override_num_blocks=max(1, len(units)))
    reader = _Reader(dataset, units, modalities, views)
    return numbers.map_batches(reader.tables, batch_size=1, batch_format="numpy")


class _Reader:
    """Reads units by their numbers, as Arrow tables of joined rows."""

    def __init__(
        self, dataset: Dataset, units: Sequence[Unit], modalities: Sequence[str], views: Collection[int] | None
    ) -> None:
        self._dataset, self._units, self._modalities, self._views = dataset, units, modalities, views

    def tables(self, batch: Any) -> Iterator[pa.Table]:
        for number in batch["id"]:
            yield self._table(self._units[int(number)])

    def _table(self, unit: Unit) -> pa.Table:
        """The modalities' tables side by side: their tokens stay the Arrow arrays that they are."""
        import pyarrow.parquet as pq

        paths = [token_path(name, unit) for name in self._modalities]
        tables = [pq.read_table(io.BytesIO(self._dataset.store.read(path))) for path in paths]
        rows = joined = tables[0].select(["key", "view"])
        for name, path, table in zip(self._modalities, paths, tables, strict=True):
            if not table.select(["key", "view"]).equals(rows):
                raise misaligned(self._dataset.store.url, path, paths[0])
            joined = joined.append_column(name, table["tokens"])
        if self._views is None:
            return joined
        return joined.filter(np.isin(joined["view"].to_numpy(), list(self._views)))
