"""What the command `diff` does and prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..checks.comparison import Compared, compare_datasets
from ..checks.distances import DISTANCES
from ..dataset.dataset import open_dataset
from ..dataset.manifest import check_modalities
from .console import counted, plain_console
from .printable import printable

_DECODED = " (decoded from tokens)"


def diff(first: str, second: str, modalities: Sequence[str], samples: int, as_json: bool) -> None:
    """Prints what two datasets have in common, modality by modality. Raises DatasetError."""
    one, other = open_dataset(first), open_dataset(second)
    for dataset in (one, other):
        check_modalities(dataset.store.url, modalities, dataset.modalities)
    chosen = modalities or list(one.modalities)
    shared = [name for name in chosen if name in other.modalities]
    waiting = plain_console(stderr=True)
    compared = []
    with waiting.status("opening") as status:
        for name in shared:
            status.update(f"comparing {name}")
            compared += compare_datasets(one, other, [name], samples)
    alone = [] if modalities else [set(one.modalities) - set(shared), set(other.modalities) - set(shared)]
    if as_json:
        only = dict(zip(("first", "second"), map(sorted, alone), strict=False))
        print(json.dumps({"modalities": [asdict(found) for found in compared], "only": only}, indent=2))
        return
    if compared:
        _print(plain_console(), compared)
    else:
        plain_console().print("they have no modality in common")
    for url, names in zip((one.store.url, other.store.url), map(sorted, alone), strict=False):
        if names:
            plain_console().print(f"only in {url}: {', '.join(names)}", soft_wrap=True)


def _print(console: Console, compared: Sequence[Compared]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("modality", "made", "labels", "same tokens", "same ids", "labels lie apart by"):
        right = heading in ("labels", "same tokens", "same ids")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for found in compared:
        table.add_row(
            Text(found.modality),
            "otherwise" if found.changes else "alike",
            f"{found.labels:,}",
            _share(found.same, found.labels) if found.tokens else "-",
            _share(found.same_ids, found.ids) if found.tokens else "-",
            Text(_distances(found)),
        )
    console.print(table)
    lines = [line for found in compared for line in _lines(found)]
    if lines:
        console.print("", *map(printable, lines), sep="\n", soft_wrap=True)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _distances(found: Compared) -> str:
    if found.apart:
        return f"({found.apart})"
    known, apart = found.distances, found.distances.get("identical", 1.0) < 1
    if not apart and (known or (found.tokens and found.labels)):
        return "nothing" if known and not found.decoded else f"nothing{_DECODED}"
    said = ", ".join(f"{DISTANCES[name].label} {DISTANCES[name].say(value)}" for name, value in known.items())
    return f"{said}{_DECODED}" if found.decoded and said else said or "-"


def _lines(found: Compared) -> list[str]:
    """What isn't in the table."""
    lines = [f"{found.modality}: {change}" for change in found.changes]
    if found.ids_apart:
        lines.append(f"{found.modality}: {found.ids_apart}, so the same ids mean something else in each")
    if found.found < found.samples:
        lacking = found.samples - found.found
        lines.append(f"{found.modality}: {lacking:,} of {counted(found.samples, 'sample')} aren't in the second")
    if any(found.only):
        first, second = found.only
        lines.append(f"{found.modality}: {counted(first, 'label')} only the first has, {second:,} only the second")
    return lines
