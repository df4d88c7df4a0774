"""Shards as training reads them: checked once when they come, kept in a folder of this machine, read ahead."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...pipeline.dataset.layout import LABELS, TOKENS
from ...pipeline.dataset.shards import verify_checksum
from ...pipeline.storage.store import Store

_THREADS = 8
_MOST_COMING = 4096
"""Shards that are read ahead at most."""


class ShardCache:
    """Files in a folder, of `limit` bytes at most: those that were used last. For any number of processes at once.

    A file appears whole, by a rename, and begins with its size, so that one which a crash cut short isn't taken for
    whole. The time of its last use is that of modification, which all file systems keep. The file `used` holds how many
    bytes lie there, and is locked by who adds some.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder.expanduser().absolute(), limit

    def get(self, name: str) -> bytes | None:
        """The bytes that were put under the name; None where they aren't there any more."""
        path = self.folder / _digest(name)
        with suppress(FileNotFoundError):
            data = path.read_bytes()
            if int.from_bytes(data[:_HEAD], "big") == len(data) - _HEAD:
                os.utime(path)
                return data[_HEAD:]
        return None

    def put(self, name: str, data: bytes) -> None:
        """Keeps them and, beyond the limit, deletes what was longest without use."""
        size = _HEAD + len(data)
        if size > self.limit:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{secrets.token_hex(8)}"
        temporary.write_bytes(len(data).to_bytes(_HEAD, "big") + data)
        with open(self.folder / _USED, "a+b") as used:
            fcntl.flock(used, fcntl.LOCK_EX)
            used.seek(0)
            total = int(used.read() or 0) + size
            if total > self.limit:
                total = self._make_room(self.limit - size, temporary.name) + size
            temporary.rename(self.folder / _digest(name))
            used.truncate(0)
            used.write(str(total).encode())

    def _make_room(self, limit: int, but: str) -> int:
        """Deletes down to a little below the limit, so that not each file that comes has all of them looked at; the
        bytes that are left."""
        files = sorted(
            (status.st_mtime_ns, status.st_size, path)
            for path in self.folder.iterdir()
            if path.name not in (_USED, but) and (status := path.stat())
        )
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= limit * _LEFT:
                break
            path.unlink()
            total -= size
        return total


_USED = "used"
_HEAD = 8
_LEFT = 0.9


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:40]


class ShardStore(Store):
    """A dataset's store for reading: shards are checked against their checksums when they come from it, and kept in the
    cache. `fetch` has threads read what will be asked for.

    Reading raises what `Store` does, and BrokenShardError.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, cache: ShardCache | None = None) -> None:
        super().__init__(url, options)
        self._cache = None if self.is_local else cache
        self._coming: dict[str, Future[bytes]] = {}
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_coming": {}, "_pool": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def read(self, path: str) -> bytes:
        with self._lock:
            coming = self._coming.pop(path, None)
        return coming.result() if coming and self._is_own() else self._read(path)

    def fetch(self, paths: Collection[str]) -> None:
        """Begins to read these; whoever reads one of them takes it, once."""
        if not self._is_own():
            self._coming, self._pool = {}, (os.getpid(), ThreadPoolExecutor(_THREADS, thread_name_prefix="shards"))
        assert self._pool is not None
        with self._lock:
            for path in paths:
                if path not in self._coming and len(self._coming) < _MOST_COMING:
                    self._coming[path] = self._pool[1].submit(self._read, path)

    def _is_own(self) -> bool:
        """Whether the threads are this process's: a forked child has none of its parent's."""
        return self._pool is not None and self._pool[0] == os.getpid()

    def _read(self, path: str) -> bytes:
        if path.rpartition(".")[2] not in (TOKENS, LABELS):
            return super().read(path)
        name = f"{self.url}/{path}"
        if self._cache and (data := self._cache.get(name)) is not None:
            return data
        data = super().read(path)
        verify_checksum(data)
        if self._cache:
            self._cache.put(name, data)
        return data
