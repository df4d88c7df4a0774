"""Stored files for parsers that jump about in them: a read takes what lies behind it along."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from .store import RangeFile, Store

WINDOW = 4 * 2**20
"""Bytes that a request asks for at least."""
_KEPT = 4


class WindowFile(RangeFile):
    """A stored object as a file, of which the last few stretches that were read stay in memory: columns that lie beside
    each other cost one request. A file of WINDOW bytes at most is read whole.

    wanted: stretches of a larger one, from and to, in order, of which a read takes more along than it asks for.
    """

    def __init__(self, store: Store, path: str, size: int) -> None:
        super().__init__(store, path, size)
        self.wanted: Sequence[tuple[int, int]] = ()
        self._windows: deque[tuple[int, bytes]] = deque(maxlen=_KEPT)

    def read(self, size: int = -1) -> bytes:
        start = self._position
        stop = self._size if size is None or size < 0 else min(start + size, self._size)
        parts: list[bytes] = []
        while self._position < stop and (part := self._kept(stop) or self._asked_for(stop)):
            parts.append(part)
            self._position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _wanted_end(self, at: int) -> int:
        """That of the wanted stretch with the byte `at`; that byte itself where there is none."""
        number = bisect_right(self.wanted, at, key=lambda span: span[0])
        return min(self.wanted[number - 1][1], self._size) if number else at

    def _kept(self, stop: int) -> bytes:
        """What is in memory from the position on, of what ends at `stop`."""
        at = self._position
        found = next((one for one in self._windows if one[0] <= at < one[0] + len(one[1])), None)
        return found[1][at - found[0] : stop - found[0]] if found else b""

    def _asked_for(self, stop: int) -> bytes:
        """The same by a request; what comes behind is kept."""
        at = self._position
        begin, end = (0, self._size) if self._size <= WINDOW else (at, min(at + WINDOW, self._wanted_end(at)))
        data = self._store.read_range(self._path, begin, max(end, stop))
        if len(data) > stop - at:
            self._windows.append((begin, data))
        return data[at - begin : stop - begin]
