"""A word, on stderr, on requests to storage that take long: else retrying looks like hanging."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Thread

_PATIENCE = 10.0
"""Seconds that a request takes, with what is tried again, before it is told."""
_EVERY = 2.0


class _Underway:
    """The requests of this process. One is told, and no other until it is done."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests: dict[object, tuple[float, str]] = {}
        self._watched = False
        self._told: object = None

    def begin(self, what: str) -> object:
        key = object()
        with self._lock:
            self._requests[key] = (time.monotonic(), what)
            start, self._watched = not self._watched, True
        if start:
            Thread(target=self._watch, daemon=True, name="slow storage").start()
        return key

    def end(self, key: object) -> None:
        with self._lock:
            del self._requests[key]

    def _watch(self) -> None:
        """Ends when there is nothing to watch, so that no thread stays behind."""
        while True:
            time.sleep(_EVERY)
            with self._lock:
                if not self._requests:
                    self._watched = False
                    return
                key = min(self._requests, key=self._requests.__getitem__)
                began, what = self._requests[key]
                late = time.monotonic() - began > _PATIENCE and self._told not in self._requests
                self._told = key if late else self._told
            if late:
                print(f"tokenloom: still trying to {what}, for {_PATIENCE:.0f} s now", file=sys.stderr, flush=True)


_underway: dict[int, _Underway] = {}
"""By process: a fork has neither the thread nor the requests."""


@contextmanager
def told_when_slow(what: str) -> Iterator[None]:
    """what: as in "still trying to ..."."""
    requests = _underway.setdefault(os.getpid(), _Underway())
    key = requests.begin(what)
    try:
        yield
    finally:
        requests.end(key)
