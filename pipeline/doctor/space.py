"""Room on a machine's disks, and in the memory that processes share."""

from __future__ import annotations

from collections.abc import Mapping

from ..cluster.machine import space
from .finding import Finding, failed, ok, warning

SESSION, SHARED = "Ray's session", "/dev/shm"

_FULL = 0.95
"""Of a disk, past which Ray takes no more objects: its local_fs_capacity_threshold."""
_LITTLE = 10 * 2**30
_LEAST_STORE = 2**30
"""Bytes of an object store, where it isn't known yet."""


def look_at_space(folders: Mapping[str, str], store: float) -> list[Finding]:
    """folders: by what they are for, SESSION and SHARED among them. store: bytes of the node's object store, 0 where
    Ray doesn't run yet."""
    found = space(folders)
    return [
        shared_memory(free, total, store) if name == SHARED else disk(name, folders[name], free, total)
        for name, (free, total) in found.items()
    ]


def disk(name: str, folder: str, free: int, total: int) -> Finding:
    check = f"disk ({name})"
    said = f"{_size(free)} of {_size(total)} are free at {folder}"
    if name == SESSION and free <= (1 - _FULL) * total:
        way_out = "Make room, or start Ray with --object-spilling-directory and --temp-dir on another disk"
        return failed(check, f"{said}; past {_FULL:.0%} Ray takes no more objects", way_out, free)
    if free < _LITTLE:
        return warning(check, said, "Make room: a run that finds none stops, and goes on when there is some", free)
    return ok(check, said, free)


def shared_memory(free: int, total: int, store: float) -> Finding:
    said = f"{_size(free)} of {_size(total)} are free"
    if total < (needed := store or _LEAST_STORE):
        way_out = f"Give the container more (--shm-size, or an emptyDir of medium Memory): {_size(needed)} at least"
        said += f", and Ray's object store has {_size(store)}" if store else ""
        return warning(SHARED, f"{said}: what has no room goes to the disk, which is slow", way_out, free)
    return ok(SHARED, said, free)


def _size(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB"
