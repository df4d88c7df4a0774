"""Wall clocks that are off, for processes that are started with them: a library of our own, which they preload.

A namespace of time holds the monotonic clock alone, and Debian's libfaketime 0.9.10 breaks Python's `time.sleep`.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


def why_not() -> str:
    """Why there are none here; "" where there are."""
    return "" if shutil.which("cc") else "there is no C compiler here"


def build(folder: Path) -> Path:
    """The library, made in the folder."""
    library = folder / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, _SOURCE, "-ldl"], check=True)
    return library


def environment(library: Path, seconds: int) -> dict[str, str]:
    """Of a process whose clock is so many seconds ahead, or behind."""
    return {"LD_PRELOAD": str(library), "TOKENLOOM_CHAOS_CLOCK": str(seconds)}
