"""What a retrieval found, in a terminal and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .retrieve import Retrieval


def print_retrieval(console: Console, found: Retrieval) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("sample", overflow="fold")
    table.add_column("view", justify="right")
    table.add_column("distance", justify="right")
    for one in found.matches:
        table.add_row(Text(one.key), str(one.view), f"{one.distance:.4g}")
    console.print(table)
    how = "predicted" if found.predicted else "given"
    lacking = f"; {found.lacking:,} of them have none" if found.lacking else ""
    lacking += f"; of {found.unmade:,} more it isn't made yet" if found.unmade else ""
    console.print(
        f"by {found.by}, {how}, among {found.samples:,} samples' {_said(found.origin)}{lacking}",
        highlight=False,
    )


def as_json(found: Retrieval) -> dict[str, Any]:
    return {
        "checkpoint": found.checkpoint,
        "dataset": found.dataset.store.url,
        "by": found.by,
        "predicted": found.predicted,
        "vectors": found.origin,
        "samples": found.samples,
        "lacking": found.lacking,
        "unmade": found.unmade,
        "matches": [{"key": one.key, "view": one.view, "distance": one.distance} for one in found.matches],
    }


def _said(origin: str) -> str:
    return "labels" if origin == "labels" else "tokens, decoded"
