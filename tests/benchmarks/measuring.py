"""Wall clock and CPU seconds of a command with all processes that it starts, also those that outlive their parents."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_EVERY = 0.2
_TICK = os.sysconf("SC_CLK_TCK")
_BECOME_SUBREAPER = 36  # prctl(2): orphans below this process become its children, so that none is lost sight of


@dataclass(frozen=True)
class Usage:
    """Seconds of wall clock and of CPU, user and system, and what the command printed last."""

    wall: float
    cpu: float
    answer: str

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.wall - other.wall, self.cpu - other.cpu, self.answer)

    def __truediv__(self, parts: int) -> Usage:
        return Usage(self.wall / parts, self.cpu / parts, self.answer)


def measure(command: Sequence[str], environment: Mapping[str, str]) -> Usage:
    """Runs a command to its end. Its descendants' times are sampled from /proc, since Ray's raylet doesn't wait for its
    workers, so that their times appear in nobody's resource usage; what a process does in its last 0.2 s may be missed.

    Raises CalledProcessError with the command's standard error when it fails.
    """
    began = time.perf_counter()
    with CpuSampler() as sampler:
        process = subprocess.Popen(
            list(command), env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        out, err = process.communicate()
        wall = time.perf_counter() - began
    _reap()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command), out, err)
    return Usage(wall, sampler.seconds, out.strip().rpartition("\n")[2])


class CpuSampler(threading.Thread):
    """Keeps the last known CPU time of every process below this one that it has seen, while it is entered."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ticks: dict[tuple[int, int], int] = {}
        self._ended = threading.Event()
        self._before = dict(_descendants(os.getpid()))

    @property
    def seconds(self) -> float:
        return sum(ticks - self._before.get(process, 0) for process, ticks in list(self._ticks.items())) / _TICK

    def __enter__(self) -> CpuSampler:
        ctypes.CDLL(None).prctl(_BECOME_SUBREAPER, 1, 0, 0, 0)
        self.start()
        return self

    def now(self) -> float:
        """CPU seconds up to this moment."""
        self._ticks.update(_descendants(os.getpid()))
        return self.seconds

    def run(self) -> None:
        while not self._ended.wait(_EVERY):
            self._ticks.update(_descendants(os.getpid()))

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.join()
        self._ticks.update(_descendants(os.getpid()))


def _descendants(root: int) -> list[tuple[tuple[int, int], int]]:
    """(pid, start time) and CPU ticks of every process below `root`; see proc(5) for the fields of stat."""
    ticks: dict[int, tuple[tuple[int, int], int]] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid, parent = int(folder.name), int(fields[1])
        ticks[pid] = ((pid, int(fields[19])), int(fields[11]) + int(fields[12]))
        children[parent].append(pid)
    found, waiting = [], [root]
    while waiting:
        below = children[waiting.pop()]
        found += [ticks[pid] for pid in below]
        waiting += below
    return found


def _reap() -> None:
    """Collects the orphans that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def own_memory(pid: int) -> float:
    """Of a process, in MB: what it shares with no other (RssAnon)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
