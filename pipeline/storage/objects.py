"""Object stores: files on S3, GCS, HTTP or whatever else fsspec reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

from . import answers
from .clients import hides_missing_buckets, lacks_bucket, tame
from .errors import StorageError, redact, without_secrets
from .local import Entry
from .read_ahead import in_order
from .s3_pages import objects_of, read_quickly

_EXTRAS = {"s3": "s3", "s3a": "s3", "az": "azure", "abfs": "azure", "abfss": "azure", "hf": "hub"}
"""Of this package, with the file systems of protocols."""
_GONE = (404, 410)
_LARGEST_PUT = 5 * 2**30
_REQUESTS = 16
_CONNECTIONS = 32
"""That S3's client keeps; of itself it has ten, for which more threads would wait."""

_renewal = Lock()
"""File systems are shared by all stores of the same options."""

_CONTENT_TYPE = {"s3": "ContentType", "gs": "content_type"}
"""What the file systems of protocols call it, of those that take one."""


class ObjectFiles:
    """The objects below a URL of an fsspec file system other than the local one. queries: as of `Store`."""

    def __init__(self, url: str, options: Mapping[str, Any], queries: Mapping[str, str] | None = None) -> None:
        protocol = url.split("://", 1)[0]
        # A listing cache would hide what other processes write.
        self.fs, self.root = file_system(url, {"use_listings_cache": False, **_settings(protocol, options)})
        self._queries = queries or {}
        self.is_s3, self._is_web = "s3" in _protocols(self.fs), "http" in _protocols(self.fs)
        if self.is_s3:
            self.fs.retries = 1  # `Store` tries again
        tame(self.fs, _protocols(self.fs))
        self._may_lack_bucket = hides_missing_buckets(_protocols(self.fs))

    def _full(self, path: str) -> str:
        full = f"{self.root.rstrip('/')}/{path}" if path else self.root
        return full + self._queries.get(full, "")

    def list_page(self, prefix: str, recursive: bool, token: str) -> tuple[list[Entry], str]:
        """A part of a listing, and the token for the next one; "" for the first, and after the last."""
        if not self.is_s3:
            return list(self._list_any(prefix, recursive)), ""
        start, page = self._page(prefix, recursive, token)
        at, found = len(start), objects_of(page)
        entries = [Entry(key[at:], size, modified, True, tag) for key, size, modified, tag in found if key[-1] != "/"]
        return entries, _next_token(page)

    def _page(self, prefix: str, recursive: bool, token: str) -> tuple[str, Mapping[str, Any]]:
        """S3's own, since a dict of everything that it tells of all takes a kilobyte an object, and what keys begin
        with."""
        read_quickly(self.fs.s3)
        bucket, key, _ = self.fs.split_path(self._full(prefix))
        start = f"{key.rstrip('/')}/" if key else ""
        request = {"Bucket": bucket, "Prefix": start, **({} if recursive else {"Delimiter": "/"})}
        return start, self.fs.call_s3("list_objects_v2", **request, **({"ContinuationToken": token} if token else {}))

    def _list_any(self, prefix: str, recursive: bool) -> Iterator[Entry]:
        top = self._full(prefix)
        depth = {} if recursive else {"maxdepth": 1}
        start = len(self.fs._strip_protocol(top).rstrip("/")) + 1
        listed = self.fs.find(top, detail=True, **depth)
        if not listed and self._lacks_bucket():
            raise FileNotFoundError(top)
        listed = {name: found for name, found in listed.items() if len(name) >= start}  # not an object by itself
        untold = [name for name, found in listed.items() if found["size"] is None]  # as in HTML pages
        sizes = {entry.name: entry.size for entry in in_order(self._stat, untold, _REQUESTS)}
        for name, found in listed.items():
            size = sizes[name] if found["size"] is None else found["size"]
            yield Entry(name[start:], size, _seconds(found), tag=_tag(found))

    def children_page(self, prefix: str, token: str) -> tuple[list[str], str]:
        """A part of the names in a folder, and the token for the next one, as of `list_page`."""
        if not self.is_s3:
            return self._children_any(prefix), ""
        start, page = self._page(prefix, False, token)
        names = [one.key for one in objects_of(page)] + [one["Prefix"] for one in page.get("CommonPrefixes", ())]
        return [name[len(start) :] for name in names if name != start], _next_token(page)

    def _children_any(self, prefix: str) -> list[str]:
        try:
            found = self.fs.ls(self._full(prefix), detail=True)
        except FileNotFoundError as error:
            if self.way_out(error):
                raise
            return []
        return [one["name"].rstrip("/").rsplit("/", 1)[-1] + "/" * (one["type"] == "directory") for one in found]

    def read(self, path: str) -> bytes:
        return self._get_s3(path) if self.is_s3 else self.fs.cat_file(self._full(path))

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        try:
            if self.is_s3:
                data = self._get_s3(path, Range=f"bytes={start}-{stop - 1}")
            else:
                data = self.fs.cat_file(self._full(path), start=start, end=stop)
        except Exception as error:  # Azure's client raises errors of its own
            if answers.http_status(error) == 416:  # nothing of the object lies at or past `start`
                return b""
            raise
        if len(data) > stop - start:
            what = "the server sends the whole file where a part is asked for"
            raise StorageError(what, redact(self._full(path)), "Download it, or ask a server that knows ranges")
        return data

    def _get_s3(self, path: str, **part: str) -> bytes:
        """By one request: s3fs asks for the size first, and reads what is large in parts, of which it takes none again
        that was cut off."""
        bucket, key, _ = self.fs.split_path(self._full(path))
        return asyncio.run_coroutine_threadsafe(_get(self.fs, Bucket=bucket, Key=key, **part), self.fs.loop).result()

    def stat(self, path: str) -> Entry:
        return self._stat(self._full(path))._replace(name=path)

    def _stat(self, name: str) -> Entry:
        found = self._info(name)
        if found["size"] is None:
            raise StorageError("the server doesn't tell its size", redact(name), "Download it, or ask another server")
        return Entry(name, found["size"], _seconds(found), tag=_tag(found))

    def _info(self, name: str) -> Mapping[str, Any]:
        try:
            return self.fs.info(name)
        except OSError as error:
            if self.is_s3 and answers.error_code(error) in ("400", "403"):
                self._page("", False, "")  # a HEAD's answer doesn't say why, which this raises
            if self._is_web and (cause := error.__cause__) and answers.http_status(cause) not in _GONE:
                raise cause from None  # fsspec takes whatever a web server answers for a file that isn't there
            raise

    def exists(self, path: str) -> bool:
        try:
            found = self._info(self._full(path))
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
            if answers.http_status(error) == 412:  # s3fs reports the failed If-None-Match as a bare OSError(EINVAL)
                return False
            raise
        return True

    def replace(self, path: str, data: bytes, content_type: str = "") -> None:
        named = [_CONTENT_TYPE[one] for one in _protocols(self.fs) if one in _CONTENT_TYPE] if content_type else []
        self.fs.pipe_file(self._full(path), data, **dict.fromkeys(named, content_type), **self._one_put())

    def delete(self, path: str) -> None:
        try:
            self.fs.rm_file(self._full(path))
        except FileNotFoundError as error:
            if self.way_out(error):
                raise

    def remove_stale_temporaries(self) -> None:
        """Nothing: objects appear with one request, complete."""

    def is_transient(self, error: BaseException) -> bool:
        return answers.is_passing(error)

    @property
    def client(self) -> object:
        """That by which requests are made now, with its credentials."""
        return self.fs._s3 if self.is_s3 else None

    def renew(self, error: BaseException, client: object) -> bool:
        """Whether another attempt may be made with the credentials that are to be had now. client: that which met with
        the error. Of many threads whose credentials expire at the same time one takes new ones, for all: a client stays
        for as long as its file system."""
        if not (self.is_s3 and answers.may_be_expired(error)):
            return False
        try:
            with _renewal:
                if client in (None, self.client):
                    self.fs.connect(refresh=True)
        except Exception:  # whatever gives credentials: what is to be told is that these have expired
            return False
        return True

    def way_out(self, error: BaseException) -> str:
        """What the user can do about `error`; empty when there is nothing special to say."""
        if isinstance(error, FileNotFoundError) and self._lacks_bucket():
            return answers.NO_BUCKET
        return answers.way_out(error, self.is_s3)

    def _lacks_bucket(self) -> bool:
        """Of a client that hides it; asked once while all is well."""
        self._may_lack_bucket = self._may_lack_bucket and lacks_bucket(self.fs, self.root)
        return self._may_lack_bucket

    def _one_put(self) -> dict[str, int]:
        """One request however large the object: the parts of an upload would not be refused until its end."""
        return {"chunksize": _LARGEST_PUT} if self.is_s3 else {}


def import_client(url: str) -> None:
    """Imports the client for a URL, which may take seconds; where that fails `file_system` tells it."""
    from fsspec import get_filesystem_class

    with suppress(ImportError, ValueError):
        get_filesystem_class(url.split("://", 1)[0])


def file_system(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the URL as that one writes it. StorageError."""
    import fsspec
    from fsspec.core import url_to_fs

    protocol = url.split("://", 1)[0]
    try:
        return url_to_fs(url, **options)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        way_out = f"pip install 'tokenloom[{extra}]'" if extra else str(error)
        raise StorageError(f"no file system for {protocol}:// is installed", redact(url), way_out) from None
    except ValueError as error:
        known = sorted(fsspec.available_protocols())
        way_out = answers.NO_CREDENTIALS if protocol in known else f"fsspec knows {', '.join(known)}"
        raise StorageError(without_secrets(str(error), options), redact(url), way_out) from None


def _settings(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, and settings of S3's client: it doesn't try again by itself, since it and s3fs around it would make
    25 requests of each of `Store`'s, with no bound in time."""
    if protocol not in ("s3", "s3a"):
        return dict(options)
    config = {"retries": {"total_max_attempts": 1}, "max_pool_connections": _CONNECTIONS}
    return {**options, "config_kwargs": {**config, **options.get("config_kwargs", {})}}


async def _get(fs: Any, **request: str) -> bytes:
    """The body of an object, whole: the client raises where one is shorter than it was said to be."""
    answer = await fs._call_s3("get_object", **request)
    try:
        if not answer["ResponseMetadata"]["HTTPHeaders"].keys() & {"content-length", "transfer-encoding"}:
            raise ConnectionError("the answer doesn't say where it ends: it may have been cut off")
        return await answer["Body"].read()
    finally:
        answer["Body"].close()


def _next_token(page: Mapping[str, Any]) -> str:
    return page["NextContinuationToken"] if page.get("IsTruncated") else ""


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
