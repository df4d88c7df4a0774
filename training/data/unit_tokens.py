"""The tokens of one unit, as they lie in its shards: flat, so that the rows of a batch are gathered without a loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.reader import ColumnReader, misaligned
from .spans import ranges

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Tokens:
    """One modality's tokens of a unit's rows. values: flat; starts, lengths: int64 (rows,), of each row in them.
    present: bool (rows,); a sample that lacks the modality has no tokens, and isn't an empty text."""

    values: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    present: np.ndarray


def read_unit(reader: ColumnReader, unit: Unit, modalities: Sequence[str]) -> tuple[str, dict[str, Tokens]]:
    """What `rows_digest` says of the unit's rows, each a view of a sample, "" without any modality; and the tokens of
    these modalities.

    Raises DatasetError where shards don't hold the same samples, and what ColumnReader raises.
    """
    read = {name: reader.token_column(unit, name) for name in modalities}
    first = next(iter(read.values()), ("", ()))
    for name, (rows, tokens) in read.items():
        if rows != first[0] or len(tokens) != len(first[1]):
            paths = reader.token_path(unit, name), reader.token_path(unit, modalities[0])
            raise misaligned(reader.store.url, *paths)
    return first[0], {name: _flat(tokens) for name, (_, tokens) in read.items()}


def _flat(lists: pa.Array) -> Tokens:
    import pyarrow as pa

    present = lists.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(lists.type):  # with room for what is null
        starts = np.arange(len(lists)) * lists.type.list_size
        lengths = np.full(len(lists), lists.type.list_size)
    else:
        offsets = lists.offsets.to_numpy().astype(np.int64)
        starts, lengths = offsets[:-1], np.diff(offsets)
    return Tokens(lists.values.to_numpy(zero_copy_only=False), starts, np.where(present, lengths, 0), present)


class Rows:
    """Rows of several units, one behind the other, whose tokens stay where they are until they are asked for.

    units: the tokens of each, and which of its rows; None for rows that aren't there. lengths: int64 (n,), of all of a
    row's tokens; present: bool (n,).
    """

    def __init__(self, units: Sequence[tuple[Tokens | None, np.ndarray]]) -> None:
        self._values = [None if tokens is None else tokens.values for tokens, _ in units]
        self._ends = np.cumsum([len(rows) for _, rows in units])
        self._starts = _joined([(0, rows) if one is None else (one.starts, rows) for one, rows in units], np.int64)
        self.lengths = _joined([(0, rows) if one is None else (one.lengths, rows) for one, rows in units], np.int64)
        self.present = _joined([(False, rows) if one is None else (one.present, rows) for one, rows in units], bool)

    def at(self, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        """int32 (k,): the tokens at these places of these rows, int64 (k,) each, the rows in rising order."""
        flat, found = self._starts[rows] + places, np.empty(len(rows), np.int32)
        begin = 0
        for values, end in zip(self._values, np.searchsorted(rows, self._ends).tolist(), strict=True):
            if values is not None and end > begin:
                found[begin:end] = values[flat[begin:end]]
            begin = end
        return found

    def padded(self, rows: np.ndarray, begin: np.ndarray, lengths: np.ndarray, room: int) -> np.ndarray:
        """int32 (k, the largest length + room): so many tokens of these rows, int64 (k,) in rising order, from `begin`
        on; 0 behind them."""
        ids = np.zeros((len(rows), int(lengths.max(initial=0)) + room), np.int32)
        ids[np.arange(ids.shape[1]) < lengths[:, None]] = self.at(np.repeat(rows, lengths), ranges(begin, lengths))
        return ids


def _joined(parts: Sequence[tuple[np.ndarray | int, np.ndarray]], dtype: type) -> np.ndarray:
    """One behind the other: of each array these elements, or as many of the number."""
    chosen = [np.full(len(at), of, dtype) if isinstance(of, int) else of[at] for of, at in parts]
    return np.concatenate(chosen) if chosen else np.empty(0, dtype)
