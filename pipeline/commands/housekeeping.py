"""What the commands `history` and `gc` do and print."""

from __future__ import annotations

import re
import time
from collections import Counter
from datetime import timedelta

from rich.console import Console
from rich.text import Text

from ..checks.garbage import KEEP, Garbage, find_garbage, remove_garbage
from ..checks.history import compare, read_history
from ..dataset.manifest import DatasetError
from ..storage.store import Store
from .console import counted, plain_console
from .dataset import readable_size
from .printable import printable
from .progress import duration

_SHOWN = 20
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def history(url: str, old: int | None, new: int | None) -> None:
    """Prints the manifests with what each changed, or what changed between two."""
    store, console = Store(url), plain_console()
    if old is not None and new is not None:
        for line in compare(store, old, new) or ["nothing differs"]:
            console.print(Text(printable(line)), soft_wrap=True)
        return
    for chapter in read_history(store):
        ago = duration(max(0.0, time.time() - chapter.written))
        console.print(Text(f"{chapter.number:>4}  {ago} ago"))
        for line in chapter.changes:
            console.print(Text(f"      {printable(line)}"), soft_wrap=True)


def gc(url: str, keep: str | None, dry_run: bool) -> None:
    """Deletes what nobody reads any more; with `dry_run` only says what that would be."""
    store, console = Store(url), plain_console()
    age = parse_age(keep) if keep else KEEP
    found = find_garbage(store, age) if dry_run else remove_garbage(store, age)
    if not dry_run:
        store.remove_stale_temporaries()
    if found:
        _print_garbage(console, found, dry_run)
    elif age:
        so_long = duration(age.total_seconds())
        console.print(f"nothing has been superseded for as long as {so_long}: --keep TIME changes that")
    else:
        console.print("nothing has been superseded")


def parse_age(text: str) -> timedelta:
    """90s, 30m, 12h or 7d. Raises DatasetError for anything else."""
    match = re.fullmatch(r"(\d+)([smhd])", text.strip())
    if match is None:
        raise DatasetError(f"--keep {text}: write a number and s, m, h or d, as in --keep 12h")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _print_garbage(console: Console, found: list[Garbage], dry_run: bool) -> None:
    for what, number in Counter(one.what for one in found).most_common():
        alike = [one for one in found if one.what == what]
        size = readable_size(sum(one.size for one in alike))
        console.print(f"{what}: {counted(number, 'object')}, {size}", soft_wrap=True)
        if dry_run:
            for one in alike[:_SHOWN]:
                console.print(Text(f"  {printable(one.path)}"), soft_wrap=True)
            if len(alike) > _SHOWN:
                console.print(f"  and {len(alike) - _SHOWN:,} more")
    total = readable_size(sum(one.size for one in found))
    console.print(f"{total} {'would be' if dry_run else 'are'} deleted")
