"""What was retrieved, in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...pipeline.commands.console import counted
from ...pipeline.commands.printable import printable
from .retrieve import Retrieval


def print_retrieval(console: Console, found: Retrieval) -> None:
    console.print(f"{printable(headline(found))}\n", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for heading in ("", "cosine", "key"):
        table.add_column(heading, justify="left" if heading == "key" else "right", overflow="fold")
    for hit in found.hits:
        table.add_row(str(hit.rank), f"{hit.score:.4f}", Text(printable(hit.key)))
    console.print(table)
    console.print()
    for note in found.notes:
        console.print(f"note: {note}", soft_wrap=True)


def headline(found: Retrieval) -> str:
    how = f"{found.by} as the model says it" if found.predicted else f"{found.by} as it is given"
    whose = "labels" if found.vectors == "labels" else "decoded tokens"
    without = f"; {found.lacking:,} have none" if found.lacking else ""
    return (
        f"{', '.join(found.given)}: {how}, against the {whose} of {counted(found.samples, 'sample')} of "
        f"{found.dataset}{without}"
    )
