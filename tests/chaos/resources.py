"""What a run holds at a moment: memory, files and sockets of each sort of its processes, and what lies about on disk.

Linux only. Memory is what is a process' own (RssAnon): pages of Ray's object store, which all map, fill up by and by.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from measuring import own_memory
from processes import descendants

_SORTS = (("ray::MapWorker", "stage"), ("ray::", "other workers"), ("raylet/raylet", "raylet"), ("gcs_server", "gcs"))
_TEMPORARY = ".tmp-"


@dataclass(frozen=True)
class Held:
    """at: seconds since the run began; units: that were done. figures: by name, such as `driver MB`."""

    at: float
    units: int
    figures: Mapping[str, float] = field(default_factory=dict)


def look(at: float, units: int, output: Path | None = None) -> Held:
    """What this process, as the driver of a run, and all below it hold now. output: a folder in which is looked for
    what writers left."""
    figures: dict[str, float] = defaultdict(float)
    for pid, sort in [(os.getpid(), "driver"), *((one.pid, _sort(one.command)) for one in descendants())]:
        with suppress(OSError):  # ended meanwhile
            figures[f"{sort} MB"] += own_memory(pid)
            kinds = [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()]
            sockets = sum(kind.startswith("socket:") for kind in kinds)
            figures[f"{sort} sockets"] += sockets
            figures[f"{sort} files"] += len(kinds) - sockets
            figures[f"{sort} processes"] += 1
    if output:
        figures.update(_left(output))
    return Held(at, units, dict(figures))


def quarters(held: Iterable[Held]) -> dict[str, tuple[float, float]]:
    """Of each figure the median over the second quarter of a run's units and over its last: the first is for warming
    up."""
    held = list(held)
    end = held[-1].units
    found: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for one in held:
        quarter = min(3, 4 * one.units // max(1, end))
        if quarter in (1, 3):
            for name in {name for other in held for name in other.figures}:
                found[name][quarter == 3].append(one.figures.get(name, 0))
    return {name: (median(second), median(last)) for name, (second, last) in sorted(found.items()) if second and last}


def growing(found: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """What isn't flat: a tenth and 10 more than before."""
    return {name: (second, last) for name, (second, last) in found.items() if last > second * 1.1 + 10}


def _sort(command: str) -> str:
    return next((sort for mark, sort in _SORTS if mark in command), "others")


def _left(output: Path) -> Mapping[str, float]:
    """Temporary files, marks of units that were begun, and folders without anything."""
    left = Counter({"temporaries": 0, "marks": 0, "empty folders": 0})
    for folder, folders, files in os.walk(output):
        left["temporaries"] += sum(name.startswith(_TEMPORARY) for name in files)
        left["marks"] += len(files) if "/attempts" in folder[len(str(output)) :] else 0
        left["empty folders"] += not folders and not files
    return left
