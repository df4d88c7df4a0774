"""Merging units on Ray: each merged shard is a task of its own, on any node."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..cluster.session import EngineError
from ..corpus.units import Unit
from ..dataset.layout import merged_stem, split_stem
from ..dataset.merged import provide_merged
from ..dataset.shards import BrokenShardError
from ..storage.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_BLOCKS = 1000
"""Blocks of work given to Ray at once; with more work, a block holds several pieces."""


@dataclass(frozen=True)
class Merge:
    """A shard to be made. folder: of the units' own; stems: theirs, in order; extension: of labels."""

    folder: str
    stems: tuple[str, ...]
    extension: str

    @property
    def merged(self) -> str:
        return merged_stem(self.stems)

    @property
    def units(self) -> list[tuple[Unit, int]]:
        """With their revisions."""
        named = ((Unit.parse(name), revision) for name, revision in map(split_stem, self.stems))
        return [(unit, revision) for unit, revision in named if unit]

    @property
    def samples(self) -> int:
        return sum(unit.count for unit, _ in self.units)


@dataclass(frozen=True)
class MergeResult:
    """bytes: of the merged shard. problem: why it can't be made, "" where it is there."""

    merge: Merge
    bytes: int
    problem: str


def merge_one(store: Store, merge: Merge) -> MergeResult:
    try:
        return MergeResult(merge, provide_merged(store, merge.folder, merge.extension, merge.units), "")
    except (BrokenShardError, FileNotFoundError) as error:
        return MergeResult(merge, 0, str(error))


def stream_merges(store: Store, merges: Sequence[Merge]) -> Iterator[MergeResult]:
    """Makes them, yielding results as they come, in any order. Raises EngineError where storage fails for good."""
    import ray.data
    from ray.exceptions import RayError

    rows = [{"merge": json.dumps(asdict(merge))} for merge in merges]
    tasks = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MOST_BLOCKS))
    tasks = tasks.map_batches(
        _merge_block,  # type: ignore[arg-type] - Ray wants a type variable that pyarrow.Table can't bind
        fn_args=(store,),
        batch_format="pyarrow",
        batch_size=1,
    )
    try:
        for row in tasks.iter_rows():
            told: dict[str, Any] = json.loads(row["result"])
            yield MergeResult(_merge_of(told["merge"]), told["bytes"], told["problem"])
    except RayError as error:
        raise EngineError(str(getattr(error, "cause", None) or error)) from None


def _merge_block(block: pa.Table, store: Store) -> Iterator[pa.Table]:
    import pyarrow as pa

    for text in block["merge"].to_pylist():
        result = merge_one(store, _merge_of(json.loads(text)))
        yield pa.table({"result": [json.dumps(asdict(result))]})


def _merge_of(told: dict[str, Any]) -> Merge:
    return Merge(told["folder"], tuple(told["stems"]), told["extension"])
