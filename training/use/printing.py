"""What the command `export` does and prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from ...pipeline.commands.console import counted, plain_console
from ...pipeline.commands.dataset import printable, readable_size
from ...pipeline.commands.progress import Shown
from ...pipeline.storage.store import Store
from .export import Exported, export
from .pieces import ExportError, Format
from .to_hf import HuggingFace
from .to_webdataset import WebDataset

FORMATS: dict[str, type[Format]] = {one.name: one for one in (WebDataset, HuggingFace)}


def run_export(url: str, output: str, to: str, modalities: Sequence[str]) -> None:
    """Raises ExportError for a format that there isn't, and what `export` raises."""
    if to not in FORMATS:
        raise ExportError(f"--to {to}: there is no such format; there are {', '.join(FORMATS)}")
    console = plain_console()
    with Shown(console) as shown:

        def progress(done: int, of: int) -> None:
            shown.show(lambda: _table(done, of), lambda: f"{done:,} of {counted(of, 'piece')}", last=done == of)

        done = export(Store(url), Store(output), FORMATS[to](), modalities, progress)
    for line in _told(done, Store(output).url):
        console.print(Text(printable(line)), soft_wrap=True)


def _table(done: int, of: int) -> Table:
    table = Table.grid()
    table.add_row(f"{done:,} of {counted(of, 'piece')}")
    return table


def _told(done: Exported, where: str) -> Iterator[str]:
    names = ", ".join(done.modalities)
    size = readable_size(done.bytes)
    yield f"{counted(done.rows, 'row')} of {names} in {counted(done.files, 'file')}, {size}, read back -> {where}"
    if done.made < done.pieces:
        yield f"{done.pieces - done.made:,} of {counted(done.pieces, 'piece')} were there already"
    for reason, count in sorted(done.left_out.items()):
        yield f"{counted(count, 'row')} left out: {reason}"
    if done.without_tokens:
        yield f"not exported, since only their labels are kept: {', '.join(done.without_tokens)}"
