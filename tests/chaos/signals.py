"""Nodes that stand still for a while, or all the time for a little."""

from __future__ import annotations

import time
from signal import SIGCONT, SIGSTOP

from machines import Node

_STILL, _GOING = 0.4, 0.1
"""Seconds at a time."""


def stopped(node: Node, seconds: float) -> None:
    """It does nothing for so long, and doesn't know of it."""
    node.send(SIGSTOP)
    time.sleep(seconds)
    node.send(SIGCONT)


def slowed(node: Node, seconds: float) -> None:
    """For so long it has a fifth of the time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stopped(node, _STILL)
        time.sleep(_GOING)
