"""A proxy before an S3 server on whose requests things go wrong: errors, broken connections, lost answers, old lists.

It passes requests on unchanged, Host and signature too, so that a client needs its endpoint alone. And it records them:
by that tests count what is asked of a store.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from random import Random
from urllib.parse import parse_qs, unquote, urlsplit

_LARGEST_HEAD = 2**20
_PIECES = 10
"""In how many a slow body comes."""


class Kind(Enum):
    """What goes wrong with a request."""

    ERROR = "the server's own error instead: nothing is carried out"
    REFUSE = "the connection is reset, and for some seconds no other is accepted: nothing is carried out"
    STALL = "no answer for some seconds, and then the connection is closed: nothing is carried out"
    RESET_REQUEST = "the connection is reset while the body is sent: nothing is carried out"
    LOST = "it is carried out, and the connection is reset before any of the answer"
    RESET = "the connection is reset in the middle of the answer's body"
    TRUNCATE = "the connection is closed in the middle of the answer's body"
    TRUNCATE_UNSEEN = "the same of an answer that doesn't say how long it is"
    SLOW = "the answer's body comes in pieces, over some seconds"
    STALE = "a listing of some seconds ago, without what was written since, and with what was deleted since"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong with the requests that it is meant for.

    operations: as `Request.operation` names them; () for all. path: a regular expression to be found in `Request.path`.
    chance: for each such request. times: for so many of them at most. status, code: of an ERROR. after: how many bytes
    of a body come through. seconds: of what lasts.
    """

    kind: Kind
    operations: tuple[str, ...] = ()
    path: str = ""
    chance: float = 1.0
    times: int | None = None
    status: int = 503
    code: str = "SlowDown"
    after: int = 0
    seconds: float = 1.0

    def is_meant_for(self, request: Request) -> bool:
        return request.operation in (self.operations or OPERATIONS) and bool(re.search(self.path, request.path))


@dataclass(frozen=True)
class Request:
    """One that came. operation: LIST, or the method. path: bucket and key; of a listing bucket and prefix. headers: by
    their names in small letters."""

    operation: str
    path: str
    fault: Kind | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, method: str, target: str) -> Request:
        parts = urlsplit(target)
        path, query = unquote(parts.path).strip("/"), parse_qs(parts.query)
        if method == "GET" and "list-type" in query:
            return cls("LIST", f"{path}/{query.get('prefix', [''])[0]}")
        return cls(method, path)


OPERATIONS = ("GET", "HEAD", "LIST", "PUT", "DELETE", "POST")


def passing_faults(share: float, seconds: float) -> list[Fault]:
    """All that a client sees and that passes by itself, in equal parts, for this share of all requests. seconds: of
    what lasts."""
    sorts = [
        *(Fault(Kind.ERROR, status=status, code=code) for status, code in ERRORS),
        *(Fault(kind) for kind in (Kind.REFUSE, Kind.STALL, Kind.LOST)),
        *(Fault(kind, ("GET", "LIST")) for kind in (Kind.RESET, Kind.TRUNCATE, Kind.TRUNCATE_UNSEEN, Kind.SLOW)),
        Fault(Kind.RESET_REQUEST, ("PUT",)),
    ]
    meant = {one: [sort for sort in sorts if one in (sort.operations or OPERATIONS)] for one in OPERATIONS}
    return [
        replace(sort, operations=(operation,), chance=share / len(meant[operation]), after=50, seconds=seconds)
        for operation in OPERATIONS
        for sort in meant[operation]
    ]


ERRORS = ((503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests"))
"""Those that pass by themselves."""


class FaultyS3:
    """The proxy, which runs in a thread of its own while it is entered. upstream: the server's endpoint. host: an
    address of this machine, at which it listens.

    requests: all that came, in order. Faults that are meant for one request share its drawing, the first ones first.
    The same seed draws alike for what is asked for the n-th time, whatever else was asked between.
    """

    def __init__(self, upstream: str, faults: Sequence[Fault] = (), seed: int = 0, host: str = "127.0.0.1") -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._faults, self._seed, self._host = list(faults), seed, host
        self._left = [fault.times for fault in self._faults]
        self._asked: Counter[tuple[str, str]] = Counter()
        self._past = _Past()
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-s3", daemon=True)
        self._server: asyncio.Server | None = None
        self.requests: list[Request] = []

    @property
    def endpoint(self) -> str:
        return f"http://{self._host}:{self._port}"

    def __enter__(self) -> FaultyS3:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def having(self, *faults: Fault) -> Iterator[list[Request]]:
        """With these faults instead of the others; gives the list that fills with the requests of that time."""
        before = self._faults, self._left, self.requests
        self._faults, self._left, self.requests = list(faults), [fault.times for fault in faults], []
        try:
            yield self.requests
        finally:
            self._faults, self._left, self.requests = before

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=_LARGEST_HEAD)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self, seconds: float) -> None:
        if self._server:
            self._server.close()
            self._server = None
            await asyncio.sleep(seconds)
            await self._listen()

    async def _end(self) -> None:
        if self._server:
            self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                await self._answer(await _read_head(reader), reader, writer)
        writer.close()

    async def _answer(self, head: list[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = head[0].decode().split(" ", 2)
        request, fault = self.draw(method, target)
        lines = (line.decode().partition(":") for line in head[1:])
        headers = {name.lower(): value.strip() for name, _, value in lines}
        self.requests.append(replace(request, headers=headers))
        if _header(head, b"expect"):
            head = [line for line in head if not line.lower().startswith(b"expect:")]
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault and fault.kind is Kind.RESET_REQUEST:
            await reader.readexactly(min(fault.after, int(_header(head, b"content-length") or 0)))
            _reset(writer)
        message = await _read_message(head, reader)
        if fault and fault.kind in (Kind.ERROR, Kind.REFUSE, Kind.STALL):
            await self._fail(fault, method, writer)
            return
        answer = await self._ask(message, method)
        self._past.see(request, answer)
        if fault and fault.kind is Kind.LOST:
            _reset(writer)
        if fault and fault.kind is Kind.STALE:
            answer = self._past.listing(request, answer, time.time() - fault.seconds)
        await _deliver(answer, fault, writer)

    async def _ask(self, message: _Message, method: str) -> _Message:
        reader, writer = await asyncio.open_connection(*self._upstream, limit=_LARGEST_HEAD)
        try:
            writer.write(message.to_bytes())
            return await _read_message(await _read_head(reader), reader, has_body=method != "HEAD")
        finally:
            writer.close()

    async def _fail(self, fault: Fault, method: str, writer: asyncio.StreamWriter) -> None:
        if fault.kind is Kind.STALL:
            await asyncio.sleep(fault.seconds)
            raise ConnectionError
        if fault.kind is Kind.REFUSE:
            self._refusing = self._loop.create_task(self._refuse(fault.seconds))
            _reset(writer)
        text = f"<Error><Code>{fault.code}</Code><Message>As it was told.</Message></Error>".encode()
        head = [b"HTTP/1.1 %d Failed" % fault.status, b"Content-Type: application/xml"]
        await _deliver(_Message(head, len(text), b"" if method == "HEAD" else text), None, writer)

    def draw(self, method: str, target: str) -> tuple[Request, Fault | None]:
        """What a request is, and what goes wrong with it. target: its path and query."""
        request = Request.of(method, target)
        self._asked[request.operation, request.path] += 1
        drawn = Random(f"{self._seed} {request} {self._asked[request.operation, request.path]}").random()
        for number, fault in enumerate(self._faults):
            if self._left[number] == 0 or not fault.is_meant_for(request):
                continue
            if drawn < fault.chance:
                left = self._left[number]
                self._left[number] = left and left - 1
                return replace(request, fault=fault.kind), fault
            drawn -= fault.chance
        return request, None


@dataclass(frozen=True)
class _Message:
    """A request or an answer. head: its lines but those of the length, which is also that of a body that isn't sent."""

    head: list[bytes]
    length: int | None
    body: bytes

    def to_bytes(self) -> bytes:
        length = [] if self.length is None else [b"Content-Length: %d" % self.length]
        return b"\r\n".join([*self.head, *length, b"", b""]) + self.body


async def _read_head(reader: asyncio.StreamReader) -> list[bytes]:
    return (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]


def _header(head: list[bytes], name: bytes) -> bytes:
    lines = (line.partition(b":") for line in head[1:])
    return next((value.strip() for key, _, value in lines if key.lower() == name), b"")


async def _read_message(head: list[bytes], reader: asyncio.StreamReader, has_body: bool = True) -> _Message:
    length, chunked = _header(head, b"content-length"), _header(head, b"transfer-encoding")
    kept = [line for line in head if line.partition(b":")[0].lower() not in (b"content-length", b"transfer-encoding")]
    if chunked and has_body:
        body = b"".join([chunk async for chunk in _chunks(reader)])
        return _Message(kept, len(body), body)
    return _Message(kept, int(length) if length else None, await reader.readexactly(int(length or 0) * has_body))


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")


def _reset(writer: asyncio.StreamWriter) -> None:
    """Has the other side see a reset, and ends the connection here."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionResetError


_CUT = (Kind.RESET, Kind.TRUNCATE, Kind.TRUNCATE_UNSEEN)


async def _deliver(answer: _Message, fault: Fault | None, writer: asyncio.StreamWriter) -> None:
    if fault and fault.kind is Kind.TRUNCATE_UNSEEN and len(answer.body) > 1:
        answer = replace(answer, head=[*answer.head, b"Connection: close"], length=None)
    data = answer.to_bytes()
    start = len(data) - len(answer.body)
    if fault and fault.kind is Kind.SLOW and answer.body:
        writer.write(data[:start])
        step = -(-len(answer.body) // _PIECES)
        for at in range(start, len(data), step):
            await asyncio.sleep(fault.seconds / _PIECES)
            writer.write(data[at : at + step])
    elif fault and fault.kind in _CUT and len(answer.body) > 1:
        writer.write(data[: min(start + fault.after, len(data) - 1)])
        await writer.drain()
        if fault.kind is Kind.RESET:
            await asyncio.sleep(0.01)  # else the reset overtakes what was written
            _reset(writer)
        raise ConnectionError
    else:
        writer.write(data)
    await writer.drain()


class _Past:
    """What listings have shown of objects, and when these were deleted."""

    def __init__(self) -> None:
        self._seen: dict[str, bytes] = {}
        self._deleted: dict[str, float] = {}

    def see(self, request: Request, answer: _Message) -> None:
        bucket = request.path.partition("/")[0]
        if request.operation == "LIST":
            self._seen |= {f"{bucket}/{_key(found)}": found for found in _contents(answer.body)}
        if request.operation == "DELETE":
            self._deleted[request.path] = time.time()

    def listing(self, request: Request, answer: _Message, then: float) -> _Message:
        """The answer to a listing of everything below a prefix as it would have been then; of one folder without what
        was deleted since."""
        found = {_key(one): one for one in _contents(answer.body)}
        if b"<Delimiter>" not in answer.body and b"<IsTruncated>true" not in answer.body:
            gone = (path for path, at in self._deleted.items() if at > then and path.startswith(request.path))
            found |= {_key(one): one for path in gone if (one := self._seen.get(path)) and _key(one) not in found}
        found = {key: one for key, one in sorted(found.items()) if _written(one) <= then}
        listed = b"".join(found.values())
        first, last = answer.body.find(b"<Contents>"), answer.body.rfind(b"</Contents>") + len(b"</Contents>")
        if first < 0:
            first = last = answer.body.rfind(b"</ListBucketResult>")
        body = answer.body[:first] + listed + answer.body[last:]
        body = re.sub(rb"<KeyCount>\d+", b"<KeyCount>%d" % len(found), body)
        return _Message(answer.head, len(body), body)


def _contents(listing: bytes) -> list[bytes]:
    return re.findall(rb"<Contents>.*?</Contents>", listing, re.DOTALL)


def _key(entry: bytes) -> str:
    return unquote(entry.partition(b"<Key>")[2].partition(b"</Key>")[0].decode())


def _written(entry: bytes) -> float:
    text = entry.partition(b"<LastModified>")[2].partition(b"</LastModified>")[0].decode()
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
