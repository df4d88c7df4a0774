"""Processes of a run: finding and killing those that it started, and no others.

The program becomes the parent of every orphan below it, so that what a killed driver leaves behind stays within sight.
Linux only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Process:
    """A process; `began`, in clock ticks since boot, tells it from a later one of the same number."""

    pid: int
    began: int

    @property
    def command(self) -> str:
        """Its command line; empty once it is gone."""
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return ""

    @property
    def memory(self) -> int:
        """Bytes that it holds; 0 once it is gone."""
        with suppress(OSError):
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return 0

    def kill(self) -> bool:
        """Kills it at once; whether it was there to be killed."""
        return self.send(signal.SIGKILL)

    def send(self, number: signal.Signals) -> bool:
        """Sends it the signal; whether it was there."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if self not in _all():
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


def adopt_orphans() -> None:
    """Makes this process the parent of all descendants whose own parent dies."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def descendants(pid: int | None = None) -> list[Process]:
    """All processes below `pid`, or below this one, parents first; without zombies."""
    children: dict[int, list[Process]] = defaultdict(list)
    for process, parent in _all().items():
        children[parent].append(process)
    found, waiting = [], [os.getpid() if pid is None else pid]
    while waiting:
        below = children[waiting.pop(0)]
        found += below
        waiting += [process.pid for process in below]
    return found


def clear(processes: Iterable[Process], patience: float) -> int:
    """Waits `patience` seconds for processes to end by themselves and kills the others; how many it had to kill."""
    everything = set(processes)
    until = time.monotonic() + patience
    while (left := everything & set(_all())) and time.monotonic() < until:
        time.sleep(0.1)
    killed = sum(process.kill() for process in left)
    while everything & set(_all()):
        time.sleep(0.05)
    for process in everything:
        with suppress(ChildProcessError):  # somebody else's child, or another process of that number
            os.waitpid(process.pid, os.WNOHANG)
    return killed


def _all() -> dict[Process, int]:
    """Every process of the machine that isn't a zombie, with its parent's number."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):  # gone since
            # The name, in parentheses, may hold anything: what follows its end is numbers.
            state, parent, *rest = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if state not in "ZX":
                found[Process(int(folder.name), int(rest[17]))] = int(parent)
    return found
