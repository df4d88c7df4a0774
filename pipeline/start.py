"""Where the command begins: Ctrl-C and SIGTERM end it with a word while what it needs is still being imported."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    from .cli import main

    main()


def _end(number: int, frame: FrameType | None) -> None:
    """Nothing is begun yet, or all is done."""
    os.write(2, b"tokenloom: stopped\n")
    os._exit(128 + number)
