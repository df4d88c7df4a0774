"""The tokens of one unit, as they lie in its shards: flat, so that the rows of a batch are gathered without a loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.reader import ColumnReader, misaligned

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


def read_unit(reader: ColumnReader, unit: Unit, modalities: Sequence[str]) -> dict[str, Tokens]:
    """The tokens of these modalities; a row is a view of a sample.

    Raises DatasetError where shards don't hold the same samples, and what ColumnReader raises.
    """
    tables = {name: reader.token_table(unit, name) for name in modalities}
    first = tables[modalities[0]]
    for name, table in tables.items():
        if not table["key"].equals(first["key"]):
            paths = reader.token_path(unit, name), reader.token_path(unit, modalities[0])
            raise misaligned(reader.store.url, *paths)
    return {name: _flat(table) for name, table in tables.items()}


def _flat(table: pa.Table) -> Tokens:
    import pyarrow as pa

    lists = table["tokens"].combine_chunks()
    present = lists.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(lists.type):  # with room for what is null
        starts = np.arange(len(lists)) * lists.type.list_size
        lengths = np.full(len(lists), lists.type.list_size)
    else:
        offsets = lists.offsets.to_numpy().astype(np.int64)
        starts, lengths = offsets[:-1], np.diff(offsets)
    return Tokens(lists.values.to_numpy(zero_copy_only=False), starts, np.where(present, lengths, 0), present)


def gather(rows: Sequence[tuple[Tokens, np.ndarray]], longest: int, room: int) -> tuple[np.ndarray, ...]:
    """Rows of several units, one behind the other, each cut to `longest` tokens.

    rows: the tokens of a unit, and which of its rows. room: places behind the longest text.
    ids: int32 (n, up to longest + room), 0 behind a row's end; lengths: int64 (n,); present: bool (n,).
    """
    lengths = np.concatenate([tokens.lengths[chosen] for tokens, chosen in rows])
    present = np.concatenate([tokens.present[chosen] for tokens, chosen in rows])
    lengths = np.minimum(lengths, longest)
    ids = np.zeros((len(lengths), int(lengths.max(initial=0)) + room), np.int32)
    at = 0
    for tokens, chosen in rows:
        own = lengths[at : at + len(chosen)]
        row = np.repeat(np.arange(len(chosen)), own)
        within = np.arange(len(row)) - np.repeat(np.cumsum(own) - own, own)
        ids[at + row, within] = tokens.values[np.repeat(tokens.starts[chosen], own) + within]
        at += len(chosen)
    return ids, lengths, present
