"""A folder of this machine that keeps what was read last, and gives back either the bytes that were put or none."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LOG = logging.getLogger("tokenloom.training")


class ShardCache:
    """Files in a folder, of `limit` bytes at most: those that were used last. For any number of processes at once.

    A name stands for the same bytes always. Each file begins with its size and checksums of its blocks, by which what a
    crash cut short or a disk has spoilt is told, and deleted. The time of its last use is that of modification, which
    all file systems keep. The file `used` holds how many bytes lie there, and is locked by who adds or deletes any.

    Nothing that goes wrong with the folder is raised: what can't be read isn't there, what can't be written isn't kept,
    which is logged once a process, and tried again a minute later.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder.expanduser().absolute(), limit
        self._rests_until, self._told = 0.0, False

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes | None:
        """The bytes that were put under the name, or [start, stop) of them; None where they aren't there any more."""
        with suppress(OSError), open(self._path(name), "rb") as file:
            data = (blocks := _Blocks.read(file)) and blocks.get(file, start, stop)
            with suppress(OSError):
                Path(file.name).unlink() if data is None else os.utime(file.fileno())
            return data
        return None

    def size(self, name: str) -> int | None:
        """Of those bytes."""
        with suppress(OSError), open(self._path(name), "rb") as file:
            return (blocks := _Blocks.read(file)) and blocks.size
        return None

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Around getting what isn't there: what others, threads or processes, want at the same time comes once."""
        with ExitStack() as held:
            with self._trying():
                self.folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(_locked(self.folder / f"lock-{_digest(name)[:2]}"))
            yield

    def holds(self, size: int) -> bool:
        """Whether so many bytes can be kept."""
        return _Blocks.room(size) <= self.limit and time.monotonic() >= self._rests_until

    def put(self, name: str, data: bytes) -> None:
        """Keeps them and, beyond the limit, deletes what was longest without use."""
        if not self.holds(len(data)):
            return
        with self._trying():
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(self.folder / "used") as used:
                self._write(self._path(name), data, used)

    def _write(self, path: Path, data: bytes, used: BinaryIO) -> None:
        """Who calls it holds the lock; so what else is half written here is of processes that died."""
        size = _Blocks.room(len(data))
        told = used.read()
        total = int(told) if told.isdigit() else self.limit
        if total + size > self.limit:
            total = self._make_room(self.limit - size)
        used.truncate(0)
        used.write(str(total + size).encode())
        temporary = path.with_suffix(_HALF)
        try:
            with open(temporary, "wb") as file:
                file.write(_Blocks.of(data).head)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _make_room(self, limit: int) -> int:
        """Deletes down to a little below the limit, so that not each file that comes has all of them looked at; the
        bytes that are left."""
        for half in self.folder.glob(f"*{_HALF}"):
            half.unlink(missing_ok=True)
        files: list[tuple[int, int, Path]] = []
        for path in self.folder.glob(f"*{_WHOLE}"):
            with suppress(FileNotFoundError):
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= limit * _LEFT:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total

    @contextmanager
    def _trying(self) -> Iterator[None]:
        """Around what is done in the folder: where it fails, nothing is tried there for a while."""
        try:
            yield
        except OSError as error:
            self._rests_until = time.monotonic() + _REST
            if not self._told:
                self._told = True
                LOG.warning(
                    "the cache in %s can't be written (%s): shards come from their stores. Make room there, or give "
                    "`data.cache.folder` another one; meanwhile it is tried once a minute",
                    self.folder,
                    error.strerror or error,
                )

    def _path(self, name: str) -> Path:
        return self.folder / f"{_digest(name)}{_WHOLE}"


@dataclass(frozen=True)
class _Blocks:
    """How a file of the cache begins: a checksum of what follows of it, the size, a checksum of each block."""

    size: int
    sums: tuple[int, ...]

    @classmethod
    def of(cls, data: bytes) -> _Blocks:
        return cls(
            len(data), tuple(zlib.crc32(memoryview(data)[at : at + _BLOCK]) for at in range(0, len(data), _BLOCK))
        )

    @classmethod
    def read(cls, file: BinaryIO) -> _Blocks | None:
        """None where the file isn't whole."""
        total, fixed = os.fstat(file.fileno()).st_size, file.read(12)
        size = int.from_bytes(fixed[4:], "big")
        if cls.room(size) != total:
            return None
        sums = file.read(4 * -(-size // _BLOCK))
        if zlib.crc32(fixed[4:] + sums) != int.from_bytes(fixed[:4], "big"):
            return None
        return cls(size, tuple(int.from_bytes(sums[at : at + 4], "big") for at in range(0, len(sums), 4)))

    @property
    def head(self) -> bytes:
        told = self.size.to_bytes(8, "big") + b"".join(one.to_bytes(4, "big") for one in self.sums)
        return zlib.crc32(told).to_bytes(4, "big") + told

    @staticmethod
    def room(size: int) -> int:
        """Bytes of a file that keeps so many."""
        return 12 + 4 * -(-size // _BLOCK) + size

    def get(self, file: BinaryIO, start: int, stop: int | None) -> bytes | None:
        """[start, stop) of what is kept; None where it isn't what was put."""
        stop = self.size if stop is None else min(stop, self.size)
        if start >= stop:
            return b""
        first, last = start // _BLOCK, -(-stop // _BLOCK)
        file.seek(self.room(self.size) - self.size + first * _BLOCK)
        data = file.read(min(last * _BLOCK, self.size) - first * _BLOCK)
        if _Blocks.of(data).sums != self.sums[first:last]:
            return None
        return data[start - first * _BLOCK : stop - first * _BLOCK]


_WHOLE, _HALF = ".shard", ".half"
_BLOCK = 2**16
_LEFT = 0.9
_REST = 60.0


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file, from its beginning and to be added to, which nobody else has meanwhile.

    It is unlocked, and not only closed: a process that was forked meanwhile has it open, too, and would keep the lock.
    """
    with open(path, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            file.seek(0)
            yield file
            file.flush()
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:40]
