"""Storage: a folder on any file system that fsspec knows, with the few operations that a dataset needs.

Three properties matter here. A written object is complete or absent. A listing is always fresh. An error says what
happened, where, and what to do, and never shows a credential.
"""

from __future__ import annotations

import builtins
import difflib
import io
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from .errors import (
    HIDDEN,
    StorageError,
    UrlError,
    hides_credentials,
    options_without_credentials,
    redact,
    without_secrets,
)
from .local import Entry, LocalFiles, without_dots
from .objects import ObjectFiles, import_client
from .slow import told_when_slow

__all__ = ["Entry", "StorageError", "Store", "absolute_url", "redact"]

T = TypeVar("T")

_ATTEMPTS = 10
_SECONDS = 60.0
"""Within which the last attempt must begin."""
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 8.0
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_ONE_NAME = {"s3a": "s3", "gcs": "gs"}
"""Of protocols that fsspec knows by two names."""
_ON_DISK = ("file", "local")
_ALMOST = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(:/|:$|//)(?!/)(.*)", re.DOTALL)
"""A URL that has lost a character of its `://`."""


class Store:
    """The objects below a root URL. Paths are relative to the root, with `/`, and can't leave it.

    url: a local path, file://, s3://, memory://, or any other that fsspec knows. `~` and relative paths are resolved
        here, so that the store means the same folder in every process.
    options: for the file system (fsspec's storage options), over its environment variables and configuration files.
    queries: of objects on web servers, by their addresses: each is asked for with its own, which stands in no message.

    A store may be pickled, forked and used by several threads. What passes by itself is tried again, ten times within a
    minute; the rest are FileNotFoundError for a missing object and StorageError for everything else.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        options: Mapping[str, Any] | None = None,
        queries: Mapping[str, str] | None = None,
    ) -> None:
        self._options, self._queries = dict(options or {}), queries or {}
        self.address = absolute_url(os.fspath(url))
        if hides_credentials(self.address):
            raise StorageError(HIDDEN, self.address)
        self._backend: tuple[int, LocalFiles | ObjectFiles] | None = None

    @property
    def url(self) -> str:
        """The root for people: without credentials, without a slash at its end. No store can be made of it where it
        lacks any; `address` is for that, and for nobody's eyes."""
        return redact(self.address)

    @property
    def identity(self) -> str:
        """What tells the store from others, of this machine or any: its URL, and what of its options and of the
        environment says where that is. Without credentials, which may change."""
        where = [options_without_credentials(self._options), *map(os.environ.get, _ENDPOINTS)]
        return f"{self.url} {json.dumps(where, sort_keys=True, default=repr)}"

    @property
    def is_local(self) -> bool:
        return "://" not in self.address

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_backend": None}

    def below(self, folder: str) -> Store:
        """The store whose root is a folder of this one."""
        return Store(f"{self.address}/{folder}", self._options, self._queries)

    def list(self, prefix: str = "", recursive: bool = True, others: bool = False) -> builtins.list[Entry]:
        """The objects below the folder `prefix`, by name; [] when there is no such folder. others: also what is no
        file."""
        return sorted(entry for page in self.pages(prefix, recursive, others) for entry in page)

    def pages(self, prefix: str = "", recursive: bool = True, others: bool = False) -> Iterator[builtins.list[Entry]]:
        """As `list`, as they come, in no particular order: for more than should lie in memory at once."""
        for found in self._pages(prefix, lambda files, token: files.list_page(prefix.strip("/"), recursive, token)):
            yield [entry for entry in found if others or entry.is_file]

    def children(self, prefix: str = "") -> builtins.list[str]:
        """The names of what lies directly in the folder `prefix`, sorted; folders end in `/`."""
        return sorted(name for page in self.child_pages(prefix) for name in page)

    def child_pages(self, prefix: str = "") -> Iterator[builtins.list[str]]:
        """As `children`, as they come, for who needs a few of them."""
        return self._pages(prefix, lambda files, token: files.children_page(prefix.strip("/"), token))

    def _pages(
        self, prefix: str, ask: Callable[[LocalFiles | ObjectFiles, str], tuple[builtins.list[T], str]]
    ) -> Iterator[builtins.list[T]]:
        """The pages of a listing. Each is tried again by itself, however many there are. ask: for that of a token."""
        token, first = "", True
        while first or token:
            found, token = self._do("list", prefix, lambda files, at=token: ask(files, at))
            first = False
            yield found

    def read(self, path: str) -> bytes:
        return self._do("read", path, lambda files: files.read(path))

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop), fewer where the object ends before `stop`."""
        return self._do("read", path, lambda files: files.read_range(path, start, stop)) if start < stop else b""

    def size(self, path: str) -> int:
        return self.stat(path).size

    def stat(self, path: str) -> Entry:
        """The object as a listing shows it."""
        return self._do("read", path, lambda files: files.stat(path))

    def open(self, path: str, size: int | None = None) -> RangeFile:
        """The object as an unbuffered file of `size` bytes (asked for when not given) that reads only what it must."""
        return RangeFile(self, path, self.size(path) if size is None else size)

    def create(self, path: str, data: bytes) -> bool:
        """Write an object, unless there is another: then False, and nothing is changed.

        True also where the same bytes are there already: where an answer gets lost on the network, the second attempt
        finds the object of the first. So of several who write the same bytes each may be told True.
        """
        return self._do("write", path, lambda files: files.create(path, data)) or self._holds(path, data)

    def _holds(self, path: str, data: bytes) -> bool:
        try:
            return self.read(path) == data
        except FileNotFoundError:  # deleted meanwhile
            return False

    def replace(self, path: str, data: bytes, content_type: str = "") -> None:
        """Write an object at once, in the place of any other. content_type: as whom S3 and GCS serve to take it for."""
        self._do("write", path, lambda files: files.replace(path, data, content_type))

    def delete(self, path: str) -> None:
        """Delete an object; a missing one is fine."""
        self._do("delete", path, lambda files: files.delete(path))

    def exists(self, path: str) -> bool:
        return self._do("look for", path, lambda files: files.exists(path))

    def remove_stale_temporaries(self) -> None:
        """Remove what writers that died have left; call it when no output depends on the answer."""
        self._do("clean", "", lambda files: files.remove_stale_temporaries())

    def _files(self) -> LocalFiles | ObjectFiles:
        """The backend of this process: a forked child must not share its parent's connections."""
        if self._backend is None or self._backend[0] != os.getpid():
            files = (
                LocalFiles(self.address) if self.is_local else ObjectFiles(self.address, self._options, self._queries)
            )
            self._backend = (os.getpid(), files)
        return self._backend[1]

    def _do(self, action: str, path: str, operation: Callable[[LocalFiles | ObjectFiles], T]) -> T:
        url = redact(f"{self.address}/{path}".rstrip("/") if path else self.address)
        _check_path(path, url)
        if self._backend is None and not self.is_local:
            import_client(self.address)  # before the watch begins: it is no request
        with nullcontext() if self.is_local else told_when_slow(f"{action} {url}"):
            return self._tried(action, url, operation)

    def _tried(self, action: str, url: str, operation: Callable[[LocalFiles | ObjectFiles], T]) -> T:
        began, renewed = time.monotonic(), False
        for attempt in count(1):
            client = None
            try:
                client = self._files().client
                return operation(self._files())
            except StorageError:
                raise
            except Exception as error:
                files = self._backend[1] if self._backend else None
                if files and not renewed and files.renew(error, client):
                    renewed = True
                    continue
                seconds, wait = time.monotonic() - began, _wait(attempt)
                if files and files.is_transient(error) and attempt < _ATTEMPTS and seconds + wait < _SECONDS:
                    time.sleep(wait)
                    continue
                tried = f", {attempt} times in {seconds:.0f} s" if attempt > 1 else ""
                # `from None`: what the file system said may hold credentials, and its traceback helps nobody.
                raise self._explained(error, f"{action} it{tried}", url, files) from None
        raise AssertionError

    def _explained(self, error: Exception, action: str, url: str, files: LocalFiles | ObjectFiles | None) -> OSError:
        way_out = files.way_out(error) if files else ""
        if isinstance(error, FileNotFoundError) and not way_out:
            return FileNotFoundError(f"{url} does not exist")
        user = self.address.partition("://")[2].partition("/")[0].rpartition("@")[0]
        first = str(error).strip().partition("\n")[0].strip()  # Azure's goes on with numbers and XML
        said = without_secrets(first, {**self._options, "user:password": user})
        named = type(error).__name__
        why = named if said in ("", "None") else f"{named}: {said}"  # None: of an answer without words
        return StorageError(f"could not {action} ({why})", url, way_out)


def _wait(attempt: int) -> float:
    """Seconds until the next attempt, drawn, so that those who failed together don't come back together."""
    return random.uniform(0.5, 1) * min(_FIRST_WAIT * 2 ** (attempt - 1), _LONGEST_WAIT)


class RangeFile(io.RawIOBase):
    """A stored object as a seekable binary file that reads by ranges, for parsers that want a file."""

    def __init__(self, store: Store, path: str, size: int) -> None:
        super().__init__()
        self._store, self._path, self._size, self._position = store, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._position + size, self._size)
        data = self._store.read_range(self._path, self._position, stop)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def absolute_url(url: str) -> str:
    """The URL as all write it that mean it: without a slash at its end, a local path absolute and without `..`; links
    keep their names. Keeps credentials: `redact` before printing. UrlError for a URL that has lost a character."""
    if problem := _almost_url(url):
        raise UrlError(problem)
    for scheme in _ON_DISK:
        url = url.removeprefix(f"{scheme}://")
    if "://" not in url:
        return str(without_dots(Path(url).expanduser().absolute()))
    scheme, rest = url.split("://", 1)
    return f"{_ONE_NAME.get(scheme, scheme)}://{rest.rstrip('/')}"


def url_problem(url: str) -> str | None:
    """Why no store can have such a URL, wherever it leads; None where one can."""
    if not url:
        return "name a folder or URL"
    protocol, found, place = url.partition("://")
    if "\0" in url:
        return f"{redact(url)!r}: no path or URL has a NUL"
    if "::" in url and not Path(url).exists():
        return f"{redact(url)}: `::` is in no path or URL that is read here; of several URLs write a list"
    if not found:
        return _almost_url(url)
    if hides_credentials(url):
        return f"{url}: {HIDDEN}"
    from fsspec import available_protocols

    known = available_protocols()
    if protocol in known:
        named = place.strip("/") or protocol in ("memory", "file", "local")
        return None if named else f"{url}: names no place: write {protocol}://, the bucket or host, and the path in it"
    close = difflib.get_close_matches(protocol, known, n=3) or sorted(known)
    return f"{redact(url)}: no file system is called {protocol}://; there are {', '.join(close)}"


def _almost_url(url: str) -> str | None:
    """Why it is no path, though it would be taken for one: the disk of each machine would be filled."""
    if not (found := _ALMOST.match(url)):
        return None
    protocol, mark, place = found.groups()
    if mark == "//":
        from fsspec import available_protocols

        if protocol not in available_protocols() or Path(protocol).exists():
            return None
    given = redact(f"{protocol}://{place}").replace("://", mark, 1)
    meant = redact(f"{protocol}://{'/' * (protocol in _ON_DISK)}{place}")
    return f"{given}: a URL has :// in it: write {meant}, or ./{given} for a folder of that name"


def _check_path(path: str, url: str) -> None:
    if path.startswith("/") or "\0" in path or any(part in ("..", ".") for part in path.split("/")):
        raise StorageError("the path leaves its root", url, "Paths are relative, without `.`, `..` and NUL")
