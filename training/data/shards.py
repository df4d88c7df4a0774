"""Shards as training reads them: checked once when they come, kept in a folder of this machine, read ahead."""

from __future__ import annotations

import builtins
import hashlib
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

from ...pipeline.dataset.layout import LABELS, TOKENS, is_merged
from ...pipeline.dataset.shards import verify_checksum
from ...pipeline.storage.store import Entry, RangeFile, Store
from .shard_cache import ShardCache

_THREADS = 8
_MOST_COMING = 4096
"""Shards that are read ahead at most."""


class ShardStore(Store):
    """A dataset's store for reading: shards are checked against their checksums when they come from it, and kept in the
    cache, merged ones as a whole, though they are read unit by unit. `fetch` has threads read what will be asked for.

    In the cache a shard's name tells the store, the path, and the size and ETag (or time) of the object, as listings
    show them: no request is needed for it, and another dataset at the same place isn't taken for it.

    Reading raises what `Store` does, and BrokenShardError; nothing of the cache's.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, cache: ShardCache | None = None) -> None:
        super().__init__(url, options)
        self._cache = None if self.is_local else cache
        self._listed = _Listed()
        self._coming: dict[str, list[Future[bytes]]] = {}  # of each as often as it is to be read
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_coming": {}, "_pool": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.RLock()

    def list(self, prefix: str = "", recursive: bool = True, others: bool = False) -> builtins.list[Entry]:
        found = super().list(prefix, recursive, others)
        if not self.is_local:
            self._listed.note(prefix, found)
        return found

    def read(self, path: str) -> bytes:
        coming = self._taken(path)
        return coming.result() if coming else self._read(path)

    def open(self, path: str, size: int | None = None) -> RangeFile:
        """Of a merged shard, which is kept where the cache has room for it; else it is read by ranges."""
        if self.is_local or not is_merged(path):
            return super().open(path, size)
        if self._cache is None:
            return super().open(path, self._version(path)[0])
        if coming := self._taken(path):
            coming.result()
        else:
            self._keep(path)
        return _KeptFile(self, path, self._version(path)[0], self._cache, self._name(path))

    def fetch(self, paths: Collection[str]) -> None:
        """Begins to read these. Each stays until it was read as often as it was asked for here; a merged one, which
        stays in the cache, once."""
        if not self._is_own():
            self._coming, self._pool = {}, (os.getpid(), ThreadPoolExecutor(_THREADS, thread_name_prefix="shards"))
        assert self._pool is not None
        with self._lock:
            for path in paths:
                if is_merged(path):
                    if self._cache and path not in self._coming:
                        self._coming[path] = [self._pool[1].submit(self._keep, path)]
                elif path in self._coming:
                    self._coming[path].append(self._coming[path][0])
                elif len(self._coming) < _MOST_COMING:
                    self._coming[path] = [self._pool[1].submit(self._read, path)]

    def _taken(self, path: str) -> Future[bytes] | None:
        """What of `fetch` is now read once."""
        with self._lock:
            coming = self._coming.get(path) if self._is_own() else None
            if not coming:
                return None
            if len(coming) == 1:
                del self._coming[path]
            return coming.pop()

    def forget(self) -> None:
        """What was fetched and nobody has read."""
        with self._lock:
            coming, self._coming = (self._coming if self._is_own() else {}), {}
        for one, *_ in coming.values():
            one.cancel()

    def _is_own(self) -> bool:
        """Whether the threads are this process's: a forked child has none of its parent's."""
        return self._pool is not None and self._pool[0] == os.getpid()

    def _read(self, path: str) -> bytes:
        if path.rpartition(".")[2] not in (TOKENS, LABELS):
            return super().read(path)
        if self._cache is None:
            return self._checked(path)
        name = self._name(path)
        if (data := self._cache.get(name)) is None:
            with self._cache.alone(name):
                if (data := self._cache.get(name)) is None:
                    data = self._checked(path)
                    self._cache.put(name, data)
        return data

    def _checked(self, path: str) -> bytes:
        data = super().read(path)
        verify_checksum(data)
        return data

    def _keep(self, path: str) -> bytes:
        """Has a merged shard in the cache, if that has room for it; of its bytes none."""
        assert self._cache
        name = self._name(path)
        if self._cache.size(name) is None and self._cache.holds(self._version(path)[0]):
            with self._cache.alone(name):
                if self._cache.size(name) is None:
                    self._cache.put(name, self._checked(path))
        return b""

    def _name(self, path: str) -> str:
        size, version = self._version(path)
        return f"{self._identity}/{path} {size} {version}"

    @cached_property
    def _identity(self) -> str:
        return self.identity

    def _version(self, path: str) -> tuple[int, int]:
        """A shard's size, and what tells it from another at the path."""
        return self._listed.version(path) or self._listed.late(path, self.stat(path))


class _KeptFile(RangeFile):
    """A shard as a file whose bytes are the cache's, or the store's where the cache has lost them."""

    def __init__(self, store: ShardStore, path: str, size: int, cache: ShardCache, name: str) -> None:
        super().__init__(store, path, size)
        self._cache, self._name = cache, name

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._position + size, self._size)
        data = self._cache.get(self._name, self._position, stop) if self._position < stop else b""
        if data is None:
            return super().read(size)
        self._position += len(data)
        return data


class _Listed:
    """Size and version of shards, as listings showed them: 24 bytes for each, since there may be millions."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._late: dict[str, tuple[int, int]] = {}

    def note(self, prefix: str, entries: Sequence[Entry]) -> None:
        """What lies below a modality's folder."""
        shards = [entry for entry in entries if entry.name.endswith((f".{TOKENS}", f".{LABELS}"))]
        if not shards:
            return
        paths = np.array([_number(f"{prefix}/{entry.name}") for entry in shards], np.uint64)
        order = np.argsort(paths)
        sizes = np.array([entry.size for entry in shards], np.int64)
        versions = np.array([_number(entry.version) for entry in shards], np.uint64)
        self._told[prefix] = paths[order], sizes[order], versions[order]

    def version(self, path: str) -> tuple[int, int] | None:
        if path in self._late:
            return self._late[path]
        paths, sizes, versions = self._told.get(path.partition("/")[0], (np.empty(0, np.uint64),) * 3)
        number = np.uint64(_number(path))
        at = int(np.searchsorted(paths, number))
        return (int(sizes[at]), int(versions[at])) if at < len(paths) and paths[at] == number else None

    def late(self, path: str, entry: Entry) -> tuple[int, int]:
        """Of a shard that no listing showed."""
        return self._late.setdefault(path, (entry.size, _number(entry.version)))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")
