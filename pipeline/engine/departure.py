"""Leaving a node that is about to go, as a spot machine does some seconds after its warning.

Ray drains such a node: it starts nothing on it, and Ray Data gives its workers no more units. But they stay, idle,
until the machine goes: the node isn't given back, no other is asked for in its place, and a stage all of whose workers
are there stands still. So a worker with nothing in hand leaves by itself; Ray starts it anew where there is room.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread

from ..cluster.nodes import own_node

_EVERY = 3.0
"""Seconds between two looks at the node: each is a request to the head, of every worker."""

_IDLE = 1.0
"""Seconds without a unit after which none is on its way any more."""


class Departure:
    """Ends this process while it has no unit in hand, once its node drains, if it is a worker of Ray's."""

    def __init__(self) -> None:
        self._in_hand = Lock()
        self._idle_since = time.monotonic()
        ray = sys.modules.get("ray._private.worker")  # there, where this is one; nothing here starts a Ray
        if ray and ray.global_worker.mode == ray.WORKER_MODE:
            Thread(target=self._watch, args=(own_node(),), daemon=True, name="departure").start()

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Not while the block runs."""
        with self._in_hand:
            yield
            self._idle_since = time.monotonic()

    def _watch(self, here: str) -> None:
        from ray._private.state import state

        while True:
            time.sleep(_EVERY)
            with suppress(Exception):  # the head may be away; Ray's own errors are of many kinds
                if here in state.get_draining_nodes():
                    self._leave()

    def _leave(self) -> None:
        with self._in_hand:
            if time.monotonic() - self._idle_since > _IDLE:
                os._exit(0)
