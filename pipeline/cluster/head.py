"""The head: the node that leads a cluster, without which Ray ends a driver."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

_PERIOD = 2.0
"""Seconds between looks, and within which it has to answer."""
_PATIENCE = 4.0
"""Seconds without an answer that pass without a word."""


@contextmanager
def head_watched(address: str) -> Iterator[None]:
    """While the block runs, it is told when the head, at HOST:PORT, doesn't answer for some seconds.

    Ray waits for it, a minute unless told otherwise, and then ends this process out of native code, without a word. So
    what there is to say is said before.
    """
    over = Event()
    Thread(target=_watch, args=(address, over), daemon=True, name="head").start()
    try:
        yield
    finally:
        over.set()


def _watch(address: str, over: Event) -> None:
    answered, told = time.monotonic(), False
    while not over.wait(_PERIOD):
        began = time.monotonic()
        if _answers(address):
            if told:
                _say(f"the cluster's head, {address}, answers again")
            answered, told = began, False
        elif not told and time.monotonic() - answered > _PATIENCE and not over.is_set():
            told = True
            _say(
                f"the cluster's head, {address}, doesn't answer; if that lasts, Ray ends this process. What was "
                f"committed stays, the same command goes on from there"
            )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PERIOD).close()
    except OSError:
        return False
    return True


def _say(text: str) -> None:
    print(f"tokenloom: {text}", file=sys.stderr, flush=True)
