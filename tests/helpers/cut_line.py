"""A line to a server on this machine that can be cut, and mended."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType


class Line:
    """Passes on what comes to its address to a port here, while it is entered and isn't cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: socket.socket | None = None
        self._ends: list[socket.socket] = []
        self._own = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._own}"

    def __enter__(self) -> Line:
        self.mend()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cut()

    def mend(self) -> None:
        self._server = socket.create_server(("127.0.0.1", self._own))
        self._own = self._server.getsockname()[1]
        threading.Thread(target=self._serve, args=(self._server,), daemon=True).start()

    def cut(self) -> None:
        """Ends all connections, and takes no others."""
        assert self._server is not None
        for end in (self._server, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def _serve(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                here, _ = server.accept()
                there = socket.create_connection(("127.0.0.1", self._port))
                self._ends += [here, there]
                for one, other in ((here, there), (there, here)):
                    threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(2**16):
            other.sendall(data)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)
