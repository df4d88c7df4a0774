"""Reading a dataset: one modality of one unit at a time, and rows joined from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...labelers.contract.kinds import Kind
from .manifest import DatasetError
from .shards import LabelShard, TokenShard


@dataclass(frozen=True)
class Row:
    """One view of one sample. values: by modality its tokens (1-d, of the modality's dtype) or, where asked for, its
    label; None where the sample lacks the modality."""

    key: str
    view: int
    values: dict[str, Any]


@dataclass(frozen=True)
class _Column:
    """One modality of one unit: a value per row. `shard`: the path of what it was read from."""

    shard: str
    keys: list[str]
    values: list[Any]


def _values(shard: TokenShard | LabelShard, kind: Kind) -> list[Any]:
    if isinstance(shard, TokenShard):
        return list(shard.tokens)
    return [None if label is None else kind.decode(label) for label in shard.labels]


def _aligned(columns: dict[str, _Column], url: str) -> dict[str, _Column]:
    """The columns, if they are of the same samples in the same order. Raises DatasetError naming two that aren't."""
    first = next(iter(columns.values()), None)
    for column in columns.values():
        if first is not None and column.keys != first.keys:
            raise misaligned(url, column.shard, first.shard)
    return columns


def misaligned(url: str, one: str, other: str) -> DatasetError:
    """What to raise for two shards that can't be joined; `one` and `other` are paths in the dataset."""
    return DatasetError(
        f"{url}/{one} and {url}/{other} don't hold the same samples in the same order: `tokenloom verify {url}` tells "
        f"which of them is broken"
    )
