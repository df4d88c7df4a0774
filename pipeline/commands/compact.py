"""What the command `compact` does and prints."""

from __future__ import annotations

from rich.table import Table

from ..cluster.session import stop_ray
from ..compact import Compacted, CompactionListener, ShardSize
from ..compact import compact as compact_dataset
from ..dataset.manifest import DatasetError
from ..storage.store import redact
from .console import counted, plain_console
from .dataset import readable_size
from .printable import printable
from .progress import Shown

_SHOWN = 5


class CompactionProgress(Shown, CompactionListener):
    """How many of the merged shards are there."""

    def merged(self, compacted: Compacted) -> None:
        line = _line(compacted)
        self.show(lambda: _table(line), lambda: line, last=compacted.done == compacted.merges)


def compact(url: str, samples: int, mebibytes: int) -> None:
    """Merges units; DatasetError, after all else was merged, where some can't be."""
    console = plain_console()
    with CompactionProgress(console) as progress:
        compacted = compact_dataset(url, ShardSize(samples, mebibytes * 2**20), listener=progress)
    stop_ray()
    url = redact(url)
    if compacted.problems:
        for problem in list(compacted.problems.values())[:_SHOWN]:
            console.print(printable(problem), soft_wrap=True, markup=False)
        raise DatasetError(
            f"{url}: {counted(len(compacted.problems), 'shard')} can't be merged, as told above: `tokenloom verify "
            f"{url}` tells what is broken, and what to do"
        )
    if not compacted.done:
        console.print(f"nothing to merge: the shards of {url} are as large as they get", soft_wrap=True)
        return
    console.print(
        f"{counted(compacted.units, 'unit')} merged, modality by modality, into {counted(compacted.done, 'shard')} "
        f"({readable_size(compacted.bytes)}); `tokenloom gc {url}` deletes the units' own once nobody reads them",
        soft_wrap=True,
    )


def _line(compacted: Compacted) -> str:
    return f"{compacted.done:,} of {compacted.merges:,} merged shards, {readable_size(compacted.bytes)}"


def _table(line: str) -> Table:
    table = Table.grid()
    table.add_row(line)
    return table
