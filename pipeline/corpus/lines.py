"""Texts a line each, JSON Lines and plain text, as they are or compressed by gzip or Zstandard.

A position is a byte of the text as it is without compression. A file that isn't compressed is entered there; of one
that is, all before it is read again, since that is the only way to come there. One block of it, and one line, is in
memory at a time.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..storage.errors import StorageError
from .formats import Format, compression_of
from .left_out import Why, few
from .names import clean_key, clean_text
from .samples import (
    LARGEST_TEXT,
    BadSample,
    CorpusError,
    Item,
    Rejection,
    Sample,
    Selection,
    Stretch,
    rejection,
)
from .texts import text_sample

_READ_SIZE = 4 * 2**20
_BLOCK = 64 * 2**10
"""Bytes that are decompressed at a time, counted from the beginning of the file wherever reading begins: what a damage
costs must not depend on that."""
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # before that of UTF-16, with which it begins
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_LOOKED_AT = 16
"""Lines that are looked into before a run."""


def read_lines(stretch: Stretch, selection: Selection, format: Format) -> Iterator[Item]:
    """The lines of a stretch, a text each. Blank lines are none, and counted. What can't be decompressed is lost, and
    all behind it: that is the last item, a rejection with an empty key."""
    at, path = stretch.start, clean_key(stretch.path)
    try:
        text = _Text.of(stretch)
        read = again = text.packed
        if at == 0 and (encoding := _other_encoding(text.lines)):
            reason = f"{path} is {encoding}, not UTF-8: convert it, as `iconv -f {encoding} -t UTF-8` does"
            yield Item(0, 0, Rejection("", reason, "NotText"))
            return
        while stretch.stop is None or at < stretch.stop:
            size, line = _next_line(text.lines)
            if not size:
                return
            if at == 0 and line is not None:
                line = line.removeprefix(codecs.BOM_UTF8)
            packed, read = text.packed - read, text.packed
            if line is not None and not line.strip():
                yield Item(at, size, None, [(Why.BLANK_LINE, f"{path} at byte {at}")], packed, again)
            else:
                content = _content(line, size, f"{path}/{at:012d}", selection, format)
                yield Item(at, size, content, packed=packed, again=again)
            at, again = at + size, 0
    except (StorageError, FileNotFoundError):
        raise
    except OSError as error:  # of which pyarrow's are
        reason = f"{path} is broken behind byte {at:,} of its text, and all from there on can't be read: {error}"
        yield Item(at, 0, Rejection("", reason, "BrokenShard"))


def check_field(stretch: Stretch, selection: Selection, url: str) -> None:
    """Looks into the first lines of JSON. Raises CorpusError where most are none, or none has the field of the text.

    A file that is broken, or in another encoding, costs itself, when it is read.
    """
    try:
        text = _Text.of(stretch)
        if _other_encoding(text.lines):
            return
        lines = [line for _, line in (_next_line(text.lines) for _ in range(_LOOKED_AT)) if line and line.strip()]
    except (StorageError, FileNotFoundError):
        raise
    except OSError:
        return
    rows: list[dict[str, Any]] = []
    problem = ""
    for line in lines:
        try:
            rows.append(_row(line.removeprefix(codecs.BOM_UTF8)))
        except BadSample as error:
            problem = problem or str(error)
    if 2 * len(rows) < len(lines):
        way_out = "`jq -c .` writes JSON a line each, and `jq -c .[]` the items of a list"
        raise CorpusError(f"{url}: of its first {len(lines)} lines {len(rows)} are JSON objects: {problem}. {way_out}")
    if rows and not any(selection.text in row for row in rows):
        raise CorpusError(
            f"{url}: its first {len(rows)} lines have no field {selection.text!r}, but {few(sorted(rows[0]))}. Name "
            f"that of the text under `corpus`, as --set corpus.text=FIELD does"
        )


@dataclass(frozen=True)
class _Text:
    """The lines of a file, as they are without compression, and the file itself."""

    lines: io.BufferedReader[Any]
    file: io.BufferedReader[Any]

    @classmethod
    def of(cls, stretch: Stretch) -> _Text:
        """At the beginning of the stretch."""
        file = io.BufferedReader(stretch.store.open(stretch.path, stretch.size), _READ_SIZE)
        compression = compression_of(stretch.path)
        if compression is None:
            file.seek(stretch.start)
            return cls(file, file)
        lines = io.BufferedReader(_Blocks(_decompressed(file, compression)), _BLOCK)
        left = stretch.start
        while left and (block := lines.read(min(left, _BLOCK))):
            left -= len(block)
        return cls(lines, file)

    @property
    def packed(self) -> int:
        """How many bytes of a compressed file have been read; 0 of others."""
        return 0 if self.lines is self.file else self.file.tell()


def _decompressed(file: io.BufferedReader[Any], compression: str) -> Callable[[int], bytes]:
    """Reads on in a decompressed file: at most so many bytes, none at its end."""
    if compression != "gzip":
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(file), compression).read
    # Unlike pyarrow's, it knows the zeros that tapes and archives leave at the end, and gives all before a damage.
    unpacked = gzip.GzipFile(fileobj=file, mode="rb")

    def read(size: int) -> bytes:
        try:
            return unpacked.read1(size)
        except (EOFError, zlib.error) as error:
            raise OSError(str(error)) from None

    return read


class _Blocks(io.RawIOBase):
    """A decompressed file by blocks of one size. read: as `_decompressed` gives it."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        super().__init__()
        self._read, self._block = read, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._block:
            self._block = self._read(_BLOCK)
        part, self._block = self._block[: len(buffer)], self._block[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def _other_encoding(file: io.BufferedReader[Any]) -> str | None:
    """The encoding that the file's byte order mark tells of, unless that is UTF-8."""
    head = file.peek(4)[:4]
    return next((encoding for mark, encoding in _OTHER_MARKS.items() if head.startswith(mark)), None)


def _next_line(file: io.BufferedReader[Any]) -> tuple[int, bytes | None]:
    """The bytes of the next line with its end, 0 behind the last; and the line, None for one that is too long."""
    line = file.readline(LARGEST_TEXT + 1)
    if len(line) <= LARGEST_TEXT:
        return len(line), line
    size = len(line)
    while not line.endswith(b"\n") and (line := file.readline(_READ_SIZE)):
        size += len(line)
    return size, None


def _content(line: bytes | None, size: int, place: str, selection: Selection, format: Format) -> Sample | Rejection:
    try:
        if line is None:
            raise BadSample("TooLarge", f"the line has {size:,} bytes, more than {LARGEST_TEXT:,}")
        row = _row(line) if format == "jsonl" else {selection.text or "": _decoded(line).rstrip("\r\n")}
        return text_sample(row, selection, place)
    except BadSample as error:
        return rejection(place, error)


def _row(line: bytes) -> dict[str, Any]:
    text = _decoded(line)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSample("InvalidJSON", f"the line is no JSON: {clean_text(str(error))}") from None
    if not isinstance(value, dict):
        raise BadSample("InvalidJSON", f"the line holds a {type(value).__name__}, not an object")
    return value


def _decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise BadSample("NotText", f"the line is no UTF-8: {error.reason} at its byte {error.start}") from None
