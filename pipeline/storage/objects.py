"""Object stores: files on S3, GCS, HTTP or whatever else fsspec reads, with retries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import StorageError, redact, without_secrets
from .local import Entry
from .read_ahead import in_order

_LARGEST_PUT = 5 * 2**30
_REQUESTS = 16


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
            what = without_secrets(str(error), options)
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
                    yield Entry(found["Key"][len(start) :], found["Size"], _seconds(found), tag=_tag(found))
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _list_any(self, prefix: str, recursive: bool) -> Iterator[Entry]:
        top = self._full(prefix)
        depth = {} if recursive else {"maxdepth": 1}
        start = len(self.fs._strip_protocol(top).rstrip("/")) + 1
        listed = self.fs.find(top, detail=True, **depth)
        listed = {name: found for name, found in listed.items() if len(name) >= start}  # not an object by itself
        untold = [name for name, found in listed.items() if found["size"] is None]  # as in HTML pages
        sizes = {entry.name: entry.size for entry in in_order(self._stat, untold, _REQUESTS)}
        for name, found in listed.items():
            size = sizes[name] if found["size"] is None else found["size"]
            yield Entry(name[start:], size, _seconds(found), tag=_tag(found))

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
            data = self.fs.cat_file(self._full(path), start=start, end=stop)
        except OSError as error:
            if _http_status(error) == 416:  # nothing of the object lies at or past `start`
                return b""
            raise
        if len(data) > stop - start:
            what = "the server sends the whole file where a part is asked for"
            raise StorageError(what, redact(self._full(path)), "Download it, or ask a server that knows ranges")
        return data

    def stat(self, path: str) -> Entry:
        return self._stat(self._full(path))._replace(name=path)

    def _stat(self, name: str) -> Entry:
        found = self.fs.info(name)
        if found["size"] is None:
            raise StorageError("the server doesn't tell its size", redact(name), "Download it, or ask another server")
        return Entry(name, found["size"], _seconds(found), tag=_tag(found))

    def exists(self, path: str) -> bool:
        try:
            found = self.fs.info(self._full(path))
            # A web server's page of a folder, to which it leads by a slash at the end, is no file.
            return found["type"] == "file" and not found.get("url", "").endswith("/")
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
            where = "AWS_ENDPOINT_URL, or `endpoint_url` in `storage_options`" if self.is_s3 else "the URL"
            return f"Nothing answers there: check {where}"
        return ""

    def _one_put(self) -> dict[str, int]:
        """One request however large the object: the parts of an upload would not be refused until its end."""
        return {"chunksize": _LARGEST_PUT} if self.is_s3 else {}


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _seconds(found: Mapping[str, Any]) -> float:
    """The time of an fsspec listing's entry, which every file system names in its own way; 0 when it tells none."""
    for name in ("LastModified", "mtime", "last_modified", "updated", "modified", "created"):
        value = found.get(name)
        if value is not None:
            return value.timestamp() if hasattr(value, "timestamp") else float(value)
    return 0.0


def _tag(found: Mapping[str, Any]) -> str:
    """The mark of an object's content in an fsspec listing's entry, or S3's own; "" where it tells none."""
    return next((str(found[name]) for name in ("ETag", "etag", "md5Hash", "content_md5") if found.get(name)), "")


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
