"""An S3 server whose listings come from a formula: a bucket of twenty million objects that nobody has to write.

It answers as S3 does, in XML over HTTP, with pages of 1,000 names and a token for the next; and it takes and gives the
few objects that have a content.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 1000
_PLAIN = re.compile(r"[\w./-]*", re.ASCII).fullmatch
_TAG = "&quot;d41d8cd98f00b204e9800998ecf8427e&quot;"


@dataclass(frozen=True)
class Formula:
    """The objects of one folder: how many, the name of each, in order, the size of all, and when the first was written
    (unix seconds); the others follow, 20 in a second."""

    count: int
    name: Callable[[int], str]
    size: int
    began: float = 1.79e9


class SyntheticS3:
    """The server, while it is entered. Paths are of bucket and key. folders: those whose objects come from a formula;
    objects: all others; requests: how many came, by their sort."""

    def __init__(self) -> None:
        self.folders: dict[str, Formula] = {}
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __enter__(self) -> SyntheticS3:
        handler = type("Handler", (_Handler,), {"bucket": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def count(self, operation: str) -> None:
        with self._lock:
            self.requests[operation] += 1

    def put(self, path: str, data: bytes, anew: bool) -> bool:
        with self._lock:
            if anew and path in self.objects:
                return False
            self.objects[path] = (data, datetime.now(timezone.utc).timestamp())
            return True

    def page(self, bucket: str, prefix: str, delimiter: str, token: str) -> str:
        """The XML of a page of names."""
        entries, more, below = self._entries(bucket, prefix, delimiter, int(token or 0))
        common = "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in below)
        following = f"<NextContinuationToken>{more}</NextContinuationToken>" if more else ""
        return (
            f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><MaxKeys>{PAGE}</MaxKeys>"
            f"<EncodingType>url</EncodingType><IsTruncated>{'true' if more else 'false'}</IsTruncated>{following}"
            f"{''.join(entries)}{common}</ListBucketResult>"
        )

    def _entries(self, bucket: str, prefix: str, delimiter: str, at: int) -> tuple[list[str], int, list[str]]:
        start = f"{bucket}/{prefix}"
        folders = [folder for folder in self.folders if f"{folder}/".startswith(start)]
        if not delimiter and folders:
            (folder,) = folders
            count = self.folders[folder].count
            found = list(self._of(folder, folder[len(bucket) + 1 :], at, min(at + PAGE, count)))
            return found, at + PAGE if at + PAGE < count else 0, []
        with self._lock:
            own = {path: one for path, one in sorted(self.objects.items()) if path.startswith(start)}
        names = {path: path[len(start) :] for path in own}
        cut = {path for path, name in names.items() if delimiter and "/" in name}
        below = {f"{prefix}{one[len(start) :].partition('/')[0]}/" for one in (*folders, *cut)} if delimiter else set()
        entries = [
            _entry(path[len(bucket) + 1 :], len(data), at) for path, (data, at) in own.items() if path not in cut
        ]
        return entries, 0, sorted(below)

    def _of(self, folder: str, key: str, start: int, stop: int) -> Iterator[str]:
        formula = self.folders[folder]
        for index in range(start, stop):
            yield _entry(f"{key}/{formula.name(index)}", formula.size, formula.began + index / 20)


def _entry(key: str, size: int, modified: float) -> str:
    second, part = divmod(round(modified * 1000), 1000)
    key = key if _PLAIN(key) else quote(key)
    return (
        f"<Contents><Key>{key}</Key><LastModified>{_second(second)}.{part:03d}Z</LastModified><ETag>{_TAG}</ETag>"
        f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


@lru_cache
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, timezone.utc).isoformat()[:-6]


class _Handler(BaseHTTPRequestHandler):
    bucket: SyntheticS3
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if "list-type" in query:
            self.bucket.count("LIST")
            told = (query.get(name, "") for name in ("prefix", "delimiter", "continuation-token"))
            self._answer(200, self.bucket.page(unquote(parts.path).strip("/"), *told).encode())
        else:
            self._give("GET")

    def do_HEAD(self) -> None:
        self._give("HEAD")

    def do_PUT(self) -> None:
        self.bucket.count("PUT")
        data = self.rfile.read(int(self.headers["Content-Length"]))
        written = self.bucket.put(self._path(), data, self.headers["If-None-Match"] == "*")
        self._answer(200 if written else 412, b"" if written else _error("PreconditionFailed"), data)

    def do_DELETE(self) -> None:
        self.bucket.count("DELETE")
        self.bucket.objects.pop(self._path(), None)
        self._answer(204, b"")

    def log_message(self, *_: object) -> None:
        pass

    def _path(self) -> str:
        return unquote(urlsplit(self.path).path).strip("/")

    def _give(self, operation: str) -> None:
        self.bucket.count(operation)
        data, _ = self.bucket.objects.get(self._path(), (None, 0.0))
        if data is None:
            self._answer(404, _error("NoSuchKey"))
        else:
            self._answer(200, data, data)

    def _answer(self, status: int, body: bytes, content: bytes | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if content is not None:
            self.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
