"""The raylet: Ray's own process on this machine, without which a driver can't go on."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from .head import head_watched
from .nodes import own_node


@contextmanager
def raylet_watched() -> Iterator[None]:
    """While the block runs, the raylet's death ends this process with exit code 1 and a message that says so; and a
    head that doesn't answer is told of.

    Ray itself ends it some 15 seconds later, out of native code and without a word about what to do; until then every
    call of Ray may hang. So there is no exception that could be raised and handled.
    """
    import ray

    here = own_node()
    path = next(node["RayletSocketName"] for node in ray.nodes() if node["NodeID"] == here)
    if not Path(path).exists():  # a driver that is connected through a Ray client has no raylet beside it
        yield
        return
    over = Event()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except ConnectionRefusedError:
            _end(path)
        watcher = Thread(target=_watch, args=(connection, path, over), daemon=True, name="raylet")
        watcher.start()
        try:
            with head_watched(ray.get_runtime_context().gcs_address):
                yield
        finally:
            over.set()
            with suppress(OSError):  # it may be closed from the other side by now
                connection.shutdown(socket.SHUT_RDWR)
            watcher.join()


def _watch(connection: socket.socket, path: str, over: Event) -> None:
    """Waits for the end of the connection: nothing is ever sent on it."""
    with suppress(ConnectionError):
        connection.recv(1)
    if not over.is_set():
        _end(path)


def _end(path: str) -> None:
    print(
        f"tokenloom: Ray's raylet on this machine died, and the run with it; was there too little memory? Its logs are "
        f"in {Path(path).parents[1] / 'logs'}. What was committed stays, the same command goes on from there",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)
