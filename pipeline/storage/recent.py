"""Recent objects: those that were read last stay in memory, for who reads them piece by piece, in order."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from .store import Store


class RecentObjects:
    """Reads whole objects, each once as long as it is among the last `count`. check: told the bytes of each, once; what
    it raises `read` raises. For several threads."""

    def __init__(self, store: Store, count: int, check: Callable[[bytes], None] = lambda data: None) -> None:
        self._store, self._count, self._check = store, count, check
        self._read: OrderedDict[str, Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: str) -> bytes:
        """What is raised is raised to all who wait for the object; who comes later tries again."""
        with self._lock:
            found = self._read.get(path)
            mine = found is None
            if found is None:
                found = self._read[path] = Future()
                if len(self._read) > self._count:
                    self._read.popitem(last=False)
            self._read.move_to_end(path)
        if mine:
            try:
                data = self._store.read(path)
                self._check(data)
                found.set_result(data)
            except Exception as error:
                with self._lock:
                    self._read.pop(path, None)
                found.set_exception(error)
        return found.result()
