"""What the command `diff` does and prints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...tokenizers.measures.reconstruction import MEASURES
from ..checks.comparison import Compared, compare_datasets
from ..dataset.dataset import open_dataset
from ..dataset.manifest import check_modalities
from .console import counted, plain_console
from .printable import printable


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
    if found.tokens and found.same == found.labels:
        return "nothing" if found.labels else "-"
    said = ", ".join(f"{MEASURES[name].label} {MEASURES[name].say(value)}" for name, value in found.distances.items())
    return f"{said} (decoded from tokens)" if found.decoded and said else said or "-"


def _lines(found: Compared) -> list[str]:
    """What isn't in the table."""
    lines = [f"{found.modality}: {change}" for change in found.changes]
    if found.found < found.samples:
        lacking = found.samples - found.found
        lines.append(f"{found.modality}: {lacking:,} of {counted(found.samples, 'sample')} aren't in the second")
    if any(found.only):
        first, second = found.only
        lines.append(f"{found.modality}: {counted(first, 'label')} only the first has, {second:,} only the second")
    return lines
