"""Storage: a folder on any file system that fsspec knows, with the few operations that a dataset needs.

Three properties matter here. A written object is complete or absent. A listing is always fresh. An error says what
happened, where, and what to do, and never shows a credential.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from .storage_local import Entry, LocalFiles

__all__ = ["Entry", "StorageError", "Store", "absolute_url", "redact"]

T = TypeVar("T")

_ATTEMPTS = 4
_FIRST_WAIT = 0.25
_LARGEST_PUT = 5 * 2**30
_CREDENTIAL_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_HARMLESS_OPTIONS = {"endpoint_url", "region_name", "region", "signature_version", "addressing_style", "protocol"}
_USER_PASSWORD = re.compile(r"(?<=://)[^/@\s'\"]+@")
_SIGNED_QUERY = re.compile(r"(?i)(?<=[?&])((?:x-amz-|x-goog-)[\w-]+|sig|signature|token|key|password)=[^&\s'\"]+")


class StorageError(OSError):
    """Storage that can't be used: what is wrong, with which URL, and the way out."""

    def __init__(self, what: str, url: str, way_out: str = "") -> None:
        super().__init__(f"{url}: {what}" + (f". {way_out}." if way_out else ""))
        self.what, self.url, self.way_out = what, url, way_out

    def __reduce__(self) -> tuple[Any, ...]:
        return StorageError, (self.what, self.url, self.way_out)


class Store:
    """The objects below a root URL. Paths are relative to the root, with `/`, and can't leave it.

    url: a local path, file://, s3://, memory://, or any other that fsspec knows. `~` and relative paths are resolved
        here, so that the store means the same folder in every process.
    options: for the file system (fsspec's storage options), over its environment variables and configuration files.

    A store may be pickled, forked and used by several threads. Errors that pass by themselves are tried again a few
    times; the rest are FileNotFoundError for a missing object and StorageError for everything else.
    """

    def __init__(self, url: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> None:
        self._options = dict(options or {})
        self._address = absolute_url(os.fspath(url))
        self._backend: tuple[int, LocalFiles | ObjectFiles] | None = None

    @property
    def url(self) -> str:
        """The root for people and for dataset.json: without credentials, without a slash at its end."""
        return redact(self._address)

    @property
    def is_local(self) -> bool:
        return "://" not in self._address

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_backend": None}

    def list(self, prefix: str = "", recursive: bool = True) -> list[Entry]:
        """The objects below the folder `prefix`, by name; [] when there is no such folder."""
        return self._do("list", prefix, lambda files: sorted(files.list(prefix.strip("/"), recursive)))

    def children(self, prefix: str = "") -> list[str]:
        """The names of what lies directly in the folder `prefix`, sorted; folders end in `/`."""
        return self._do("list", prefix, lambda files: sorted(files.children(prefix.strip("/"))))

    def read(self, path: str) -> bytes:
        return self._do("read", path, lambda files: files.read(path))

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop), fewer where the object ends before `stop`."""
        return self._do("read", path, lambda files: files.read_range(path, start, stop)) if start < stop else b""

    def size(self, path: str) -> int:
        return self._do("read", path, lambda files: files.size(path))

    def open(self, path: str, size: int | None = None) -> RangeFile:
        """The object as an unbuffered file of `size` bytes (asked for when not given) that reads only what it must."""
        return RangeFile(self, path, self.size(path) if size is None else size)

    def create(self, path: str, data: bytes) -> bool:
        """Write an object, unless there is one: then False, and nothing is changed.

        A first attempt whose success got lost on the network can make the second one find its own object: False, too.
        """
        return self._do("write", path, lambda files: files.create(path, data))

    def replace(self, path: str, data: bytes) -> None:
        """Write an object at once, in the place of any other."""
        self._do("write", path, lambda files: files.replace(path, data))

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
            files = LocalFiles(self._address) if self.is_local else ObjectFiles(self._address, self._options)
            self._backend = (os.getpid(), files)
        return self._backend[1]

    def _do(self, action: str, path: str, operation: Callable[[LocalFiles | ObjectFiles], T]) -> T:
        url = redact(f"{self._address}/{path}".rstrip("/") if path else self._address)
        _check_path(path, url)
        for attempt in range(_ATTEMPTS):
            try:
                return operation(self._files())
            except StorageError:
                raise
            except Exception as error:
                files = self._backend[1] if self._backend else None
                if files and files.is_transient(error) and attempt + 1 < _ATTEMPTS:
                    time.sleep(_FIRST_WAIT * 2**attempt)
                    continue
                # `from None`: what the file system said may hold credentials, and its traceback helps nobody.
                raise self._explained(error, action, url, files) from None
        raise AssertionError

    def _explained(self, error: Exception, action: str, url: str, files: LocalFiles | ObjectFiles | None) -> OSError:
        way_out = files.way_out(error) if files else ""
        if isinstance(error, FileNotFoundError) and not way_out:
            return FileNotFoundError(f"{url} does not exist")
        user = self._address.partition("://")[2].partition("/")[0].rpartition("@")[0]
        said = _without_secrets(str(error), {**self._options, "user:password": user})
        return StorageError(f"could not {action} it ({type(error).__name__}: {said})", url, way_out)


class ObjectFiles:
    """The objects below a URL of an fsspec file system other than the local one."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        import fsspec
        from fsspec.core import url_to_fs

        protocol = url.split("://", 1)[0]
        try:
            # A listing cache would hide what other processes write.
            self.fs, self.root = url_to_fs(url, **{"use_listings_cache": False, **options})
        except ImportError as error:
            package = "pip install 'tokenloom[s3]'" if protocol in ("s3", "s3a") else str(error)
            raise StorageError(f"no file system for {protocol}:// is installed", redact(url), package) from None
        except ValueError as error:
            known = ", ".join(sorted(fsspec.available_protocols()))
            what = _without_secrets(str(error), options)
            raise StorageError(what, redact(url), f"fsspec knows {known}") from None
        self.is_s3 = "s3" in _protocols(self.fs)

    def _full(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}" if path else self.root

    def list(self, prefix: str, recursive: bool) -> Iterator[Entry]:
        if self.is_s3:
            return self._list_s3(prefix, recursive)
        return self._list_any(prefix, recursive)

    def _list_s3(self, prefix: str, recursive: bool) -> Iterator[Entry]:
        """Page by page, since a dict of everything that S3 tells takes a kilobyte an object."""
        bucket, key, _ = self.fs.split_path(self._full(prefix))
        start = f"{key.rstrip('/')}/" if key else ""
        request = {"Bucket": bucket, "Prefix": start, **({} if recursive else {"Delimiter": "/"})}
        while True:
            page = self.fs.call_s3("list_objects_v2", **request)
            for found in page.get("Contents", ()):
                if not found["Key"].endswith("/"):
                    yield Entry(found["Key"][len(start) :], found["Size"], found["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _list_any(self, prefix: str, recursive: bool) -> Iterator[Entry]:
        top = self._full(prefix)
        depth = {} if recursive else {"maxdepth": 1}
        start = len(self.fs._strip_protocol(top).rstrip("/")) + 1
        for name, found in self.fs.find(top, detail=True, **depth).items():
            if len(name) >= start:  # `find` on an object gives that object itself
                yield Entry(name[start:], found["size"] or 0, _seconds(found))

    def children(self, prefix: str) -> list[str]:
        try:
            found = self.fs.ls(self._full(prefix), detail=True)
        except FileNotFoundError:
            return []
        return [one["name"].rstrip("/").rsplit("/", 1)[-1] + "/" * (one["type"] == "directory") for one in found]

    def read(self, path: str) -> bytes:
        return self.fs.cat_file(self._full(path))

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        try:
            return self.fs.cat_file(self._full(path), start=start, end=stop)
        except OSError as error:
            if _http_status(error) == 416:  # nothing of the object lies at or past `start`
                return b""
            raise

    def size(self, path: str) -> int:
        return self.fs.info(self._full(path))["size"]

    def exists(self, path: str) -> bool:
        try:
            return self.fs.info(self._full(path))["type"] == "file"
        except FileNotFoundError as error:
            if self.way_out(error):
                raise
            return False

    def create(self, path: str, data: bytes) -> bool:
        try:
            self.fs.pipe_file(self._full(path), data, mode="create", **self._one_put())
        except FileExistsError:
            return False
        except OSError as error:
            if _http_status(error) == 412:  # s3fs reports the failed If-None-Match as a bare OSError(EINVAL)
                return False
            raise
        return True

    def replace(self, path: str, data: bytes) -> None:
        self.fs.pipe_file(self._full(path), data, **self._one_put())

    def delete(self, path: str) -> None:
        try:
            self.fs.rm_file(self._full(path))
        except FileNotFoundError as error:
            if self.way_out(error):
                raise

    def remove_stale_temporaries(self) -> None:
        """Nothing: objects appear with one request, complete."""

    def is_transient(self, error: BaseException) -> bool:
        """Whether to try again: anything but an answer of the service that will be the same next time."""
        if isinstance(error, (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError)):
            return False
        status = _http_status(error)
        if status is not None:
            return status >= 500 or status in (408, 409, 425, 429)
        name = type(error).__name__
        return "Credential" not in name and isinstance(error, (OSError, _client_errors()))

    def way_out(self, error: BaseException) -> str:
        """What the user can do about `error`; empty when there is nothing special to say."""
        name = type(error).__name__
        if "Credential" in name:
            return "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or `storage_options` in the recipe"
        if isinstance(error, PermissionError):
            return "Check the credentials, and that they may list, read and write there"
        if _error_code(error) == "NoSuchBucket":
            return "The bucket does not exist: create it, or correct its name or the endpoint"
        if name in ("EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError"):
            return "Nothing answers there: check AWS_ENDPOINT_URL, or `endpoint_url` in `storage_options`"
        return ""

    def _one_put(self) -> dict[str, int]:
        """One request however large the object: the parts of an upload would not be refused until its end."""
        return {"chunksize": _LARGEST_PUT} if self.is_s3 else {}


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


def redact(url: str) -> str:
    """The URL, or a text with URLs, without user:password@ and without the keys and signatures in queries."""
    return _SIGNED_QUERY.sub(r"\1=***", _USER_PASSWORD.sub("***@", url))


def _without_secrets(text: str, options: Mapping[str, Any]) -> str:
    """A file system's message, redacted, and also without the values of options and of AWS's variables."""
    secrets = {os.environ.get(name, "") for name in _CREDENTIAL_VARIABLES} | set(_secret_values(options))
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) > 3:
            text = text.replace(secret, "***")
    return redact(text)


def _secret_values(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _secret_values(value)
        elif isinstance(value, str) and name not in _HARMLESS_OPTIONS:
            yield value


def absolute_url(url: str) -> str:
    """The URL without a slash at its end, a local path made absolute. Keeps credentials: `redact` before printing."""
    for scheme in ("file://", "local://"):
        url = url.removeprefix(scheme)
    if "://" not in url and "::" not in url:
        return str(Path(url).expanduser().absolute())
    scheme, rest = url.split("://", 1)
    return f"{scheme}://{rest.rstrip('/')}"


def _check_path(path: str, url: str) -> None:
    if path.startswith("/") or "\0" in path or any(part in ("..", ".") for part in path.split("/")):
        raise StorageError("the path leaves its root", url, "Paths are relative, without `.`, `..` and NUL")


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _seconds(found: Mapping[str, Any]) -> float:
    """The time of an fsspec listing's entry, which every file system names in its own way; 0 when it tells none."""
    for name in ("LastModified", "mtime", "last_modified", "updated", "modified", "created"):
        value = found.get(name)
        if value is not None:
            return value.timestamp() if hasattr(value, "timestamp") else float(value)
    return 0.0


def _client_errors() -> tuple[type[BaseException], ...]:
    """What S3's client raises beside OSErrors when a connection fails."""
    try:
        from botocore.exceptions import BotoCoreError
    except ImportError:
        return ()
    return (BotoCoreError,)


def _response(error: BaseException) -> Mapping[str, Any]:
    """What S3 answered, from an error of its client or one that s3fs translated."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, Mapping):
            return response
    return {}


def _http_status(error: BaseException) -> int | None:
    return _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")


def _error_code(error: BaseException) -> str | None:
    return _response(error).get("Error", {}).get("Code")
