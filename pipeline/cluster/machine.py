"""What a machine of a cluster says of itself: this very file goes there by value, for the machine may have no
tokenloom, or another one. So it needs the standard library alone."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version

PYTHON = "Python"

_GPUS = """
import json, torch
found = torch.cuda.is_available() and torch.cuda.device_count() or 0
names = [torch.cuda.get_device_name(n) for n in range(found)]
free = [torch.cuda.mem_get_info(n)[0] for n in range(found)]
print(json.dumps({"torch": torch.__version__, "names": names, "free": free}))
"""


def versions(names: Sequence[str]) -> dict[str, str]:
    """Of distributions, by their names, and of Python; "" of those that aren't installed."""
    found = {PYTHON: platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def pinned(pins: Sequence[str], names: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Of an environment that should have these distributions, NAME==VERSION: the versions of these and of `names`; what
    the pinned ones need and isn't there; and what they need in another version than is there."""
    from packaging.requirements import Requirement  # which Ray brings

    found = versions([*(pin.partition("==")[0] for pin in pins), *names])
    lacking, unfit = [], []
    for name in (pin.partition("==")[0] for pin in pins):
        for needed in map(Requirement, (requires(name) or ()) if found[name] else ()):
            if needed.marker and not needed.marker.evaluate({"extra": ""}):
                continue
            there, told = versions([needed.name])[needed.name], f"{name} needs {needed.name}{needed.specifier}"
            if not there:
                lacking.append(told)
            elif not needed.specifier.contains(there, prereleases=True):
                unfit.append(f"{told}, and {there} is there")
    return found, lacking, unfit


def missing(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not os.path.exists(path)]  # noqa: PTH110


class Machine:
    """An actor's, one on each node."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def versions(self, names: Sequence[str]) -> dict[str, str]:
        return versions(names)

    def gpus(self, seconds: float) -> str:
        """What torch sees here, as JSON: its version, the GPUs' names, and their free memory in bytes. In a process of
        its own, which holds no memory of a GPU afterwards. Raises RuntimeError."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        hidden = {"CUDA_VISIBLE_DEVICES"} if not visible else set()  # Ray hides them from who claims none
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        ended = subprocess.run(
            [sys.executable, "-c", _GPUS], env=environment, capture_output=True, text=True, timeout=seconds
        )
        if ended.returncode:
            raise RuntimeError(ended.stderr.strip().rpartition("\n")[2] or f"exit code {ended.returncode}")
        return ended.stdout.strip().rpartition("\n")[2]


def space(folders: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Free bytes and all bytes of the disks that hold the folders, or will; by the folders' names."""
    found = {name: shutil.disk_usage(_there(folder)) for name, folder in folders.items()}
    return {name: (disk.free, disk.total) for name, disk in found.items()}


def _there(folder: str) -> str:
    while not os.path.exists(folder):  # noqa: PTH110
        folder = os.path.dirname(folder) or "."  # noqa: PTH120
    return folder
