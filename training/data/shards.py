"""Shards as training reads them: checked once when they come, kept in a folder of this machine, read ahead."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import threading
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ...pipeline.dataset.layout import LABELS, TOKENS, is_merged
from ...pipeline.dataset.shards import verify_checksum
from ...pipeline.storage.store import RangeFile, Store

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

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        """The bytes that were put under the name, or [start, stop) of them; None where they aren't there any more."""
        path = self.folder / _digest(name)
        with suppress(FileNotFoundError), open(path, "rb") as file:
            if (size := _whole(file)) is not None:
                os.utime(path)
                file.seek(_HEAD + start)
                return file.read((size if stop is None else min(stop, size)) - start)
        return None

    def size(self, name: str) -> int | None:
        """Of those bytes."""
        with suppress(FileNotFoundError), open(self.folder / _digest(name), "rb") as file:
            return _whole(file)
        return None

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Around getting what isn't there: what others, threads or processes, want at the same time comes once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{_LOCK}{_digest(name)[:2]}", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def holds(self, size: int) -> bool:
        """Whether so many bytes can be kept."""
        return _HEAD + size <= self.limit

    def put(self, name: str, data: bytes) -> None:
        """Keeps them and, beyond the limit, deletes what was longest without use."""
        if not self.holds(len(data)):
            return
        size = _HEAD + len(data)
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
            if path.name not in (_USED, but) and not path.name.startswith(_LOCK) and (status := path.stat())
        )
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= limit * _LEFT:
                break
            path.unlink()
            total -= size
        return total


_USED, _LOCK = "used", "lock-"
_HEAD = 8
_LEFT = 0.9


def _whole(file: BinaryIO) -> int | None:
    """How many bytes a file of the cache holds; None where it was cut short."""
    size = int.from_bytes(file.read(_HEAD), "big")
    return size if os.fstat(file.fileno()).st_size == size + _HEAD else None


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:40]


class ShardStore(Store):
    """A dataset's store for reading: shards are checked against their checksums when they come from it, and kept in the
    cache, merged ones as a whole, though they are read unit by unit. `fetch` has threads read what will be asked for.

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

    def open(self, path: str, size: int | None = None) -> RangeFile:
        """Of a merged shard, which is kept where the cache has room for it; else it is read by ranges."""
        if not (self._cache and is_merged(path)):
            return super().open(path, size)
        with self._lock:
            coming = self._coming.pop(path, None)
        if coming and self._is_own():
            coming.result()
        size = self._cache.size(self._name(path))
        size = self.size(path) if size is None else size
        return _KeptFile(self, path, size) if self._cache.holds(size) else super().open(path, size)

    def fetch(self, paths: Collection[str]) -> None:
        """Begins to read these; whoever reads one of them takes it, once."""
        if not self._is_own():
            self._coming, self._pool = {}, (os.getpid(), ThreadPoolExecutor(_THREADS, thread_name_prefix="shards"))
        assert self._pool is not None
        with self._lock:
            for path in paths:
                if path in self._coming or len(self._coming) >= _MOST_COMING:
                    continue
                if not is_merged(path):
                    self._coming[path] = self._pool[1].submit(self._read, path)
                elif self._cache:
                    self._coming[path] = self._pool[1].submit(self._keep, path)

    def _is_own(self) -> bool:
        """Whether the threads are this process's: a forked child has none of its parent's."""
        return self._pool is not None and self._pool[0] == os.getpid()

    def _read(self, path: str) -> bytes:
        if path.rpartition(".")[2] not in (TOKENS, LABELS):
            return super().read(path)
        return self.kept(path) if self._cache else self._checked(path)

    def _checked(self, path: str) -> bytes:
        data = super().read(path)
        verify_checksum(data)
        return data

    def _keep(self, path: str) -> bytes:
        """Has a merged shard in the cache, if that has room for it; of its bytes none."""
        assert self._cache
        there = self._cache.size(self._name(path)) is not None
        return self.kept(path, 0, 0) if there or self._cache.holds(self.size(path)) else b""

    def kept(self, path: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes [start, stop) of a shard, which comes as a whole unless the cache has it."""
        assert self._cache
        name = self._name(path)
        if (data := self._cache.get(name, start, stop)) is not None:
            return data
        with self._cache.alone(name):
            if (data := self._cache.get(name, start, stop)) is None:
                whole = self._checked(path)
                self._cache.put(name, whole)
                data = whole[start:stop]
            return data

    def _name(self, path: str) -> str:
        return f"{self.url}/{path}"


class _KeptFile(RangeFile):
    """A shard as a file whose bytes are the cache's."""

    def __init__(self, store: ShardStore, path: str, size: int) -> None:
        super().__init__(store, path, size)
        self._shards = store

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._position + size, self._size)
        data = self._shards.kept(self._path, self._position, stop) if self._position < stop else b""
        self._position += len(data)
        return data
