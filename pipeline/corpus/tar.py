"""WebDataset tars: consecutive members that share a name up to its first dot make one sample.

A position is the byte at which the first header of a sample's first member begins, so reading can start at any sample.
The walk over the headers is our own: the standard library takes a damaged header for the end of the archive.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from ..storage.errors import StorageError
from .left_out import Why
from .names import clean_key, is_hidden
from .samples import (
    LARGEST_IMAGE,
    LARGEST_TEXT,
    BadSample,
    Item,
    Rejection,
    Sample,
    Selection,
    Stretch,
    check_key,
    check_size,
    fields_from,
    is_image,
    is_text,
    rejection,
)

_BLOCK = 512
_RECORD = 20 * _BLOCK
"""To a multiple of which a tar is filled up: so where another one follows, it begins within as much."""
_READ_SIZE = 4 * 2**20
_LARGEST_HEADER = 2**20
_LONGEST_NUMBER = 9
_HEADERS_OF_HEADERS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"x", b"X", b"g")
_SPECIAL = {
    tarfile.LNKTYPE: "a link",
    tarfile.SYMTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.DIRTYPE: "a folder",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}
_WITHOUT_CONTENT = frozenset(_SPECIAL) - {tarfile.GNUTYPE_SPARSE}
_IS_EXTENDED, _MAP_IS_EXTENDED = 482, 504
"""Where the header of a GNU sparse file, and each block of its map behind that, says whether a block of it follows."""


def read_tar(stretch: Stretch, selection: Selection) -> Iterator[Item]:
    """The samples of a stretch of a tar. Reads forward, and nothing behind the stretch.

    A sample that a damage cut in two, and all behind it, is lost: that is the last item, a rejection with an empty key.
    """
    end = stretch.size if stretch.stop is None else min(stretch.stop, stretch.size)
    file: BinaryIO = io.BufferedReader(stretch.store.open(stretch.path, end), _READ_SIZE)
    group: _Group | None = None
    damage: _Damage | None = None
    before: list[tuple[Why, str]] = []  # the first sample
    try:
        for member in _members(file, stretch.start, end, whole=stretch.stop is None):
            key, extension = _split(member.name, selection.split == "last")
            problem = _problem(key, member)
            if member.type == tarfile.DIRTYPE:
                continue
            stray = _stray(member, extension, problem)
            if stray is not None and member.complete:
                (before if group is None else group.left_out).append((stray, member.name.removeprefix("./")))
                continue
            if group is None or key != group.key or extension in group.extensions:
                if group is not None:
                    yield group.finished(selection)
                group = _Group(key, member.start, left_out=before)
                before = []
            if not member.complete:
                lacking = f"{member.data + member.size - end:,} bytes before its end"
                damage = _Damage(group.start, f"its member {clean_key(member.name)} is cut off, {lacking}")
                group = None
                break
            group.add(member, extension, problem, file, selection)
    except _Damage as error:
        damage = error
    if group is not None:
        yield group.finished(selection)
    elif before:
        yield Item(stretch.start, 0, None, before)
    if damage is not None:
        lost = stretch.size - damage.byte
        said = f"; {lost:,} of its {stretch.size:,} bytes can't be read, all from there on" if lost > 0 else ""
        reason = f"{stretch.path} is broken at byte {damage.byte}: {damage}{said}"
        yield Item(damage.byte, 0, Rejection("", reason, "BrokenShard"))


class _Damage(Exception):  # noqa: N818 - a finding about the input
    """Where a tar can't be followed any more: the byte at which the first lost sample would begin."""

    def __init__(self, byte: int, what: str) -> None:
        super().__init__(what)
        self.byte = byte


@dataclass(frozen=True)
class _Member:
    """start: of its first header. data: the first byte of its content. complete: whether all of that is there."""

    name: str
    type: bytes
    start: int
    data: int
    size: int
    complete: bool


@dataclass
class _Group:
    """The members of one sample, as they are read."""

    key: str
    start: int
    size: int = 0
    extensions: set[str | None] = field(default_factory=set)
    image: bytes | None = None
    image_extension: str = ""
    texts: dict[str, bytes] = field(default_factory=dict)
    text_bytes: int = 0
    left_out: list[tuple[Why, str]] = field(default_factory=list)
    problem: BadSample | None = None

    def add(
        self, member: _Member, extension: str | None, problem: BadSample | None, file: BinaryIO, selection: Selection
    ) -> None:
        """Read the member if the sample needs it. `seg.png` is the image only where there is no plain `jpg` or such."""
        self.extensions.add(extension)
        self.size += member.size
        self.problem = self.problem or problem
        if self.problem is not None or extension is None:
            return
        try:
            if is_image(extension, selection.image):
                if self.image is None or ("." in self.image_extension and "." not in extension):
                    if self.image is not None:
                        self.left_out.append((Why.FURTHER_IMAGE, f"{self.key}.{self.image_extension}"))
                    self.image, self.image_extension = _content(file, member, LARGEST_IMAGE), extension
                else:
                    self.left_out.append((Why.FURTHER_IMAGE, f"{self.key}.{extension}"))
            elif is_text(_own(extension), member.size, selection.fields):
                self.text_bytes += member.size
                self.texts[extension.lower()] = _content(file, member, LARGEST_TEXT)
                check_size("what lies beside the image", self.text_bytes, LARGEST_TEXT)
            elif selection.fields is None:
                why = Why.FURTHER_IMAGE if is_image(extension, None) else Why.NOT_TEXT
                self.left_out.append((why, f"{self.key}.{extension}"))
        except BadSample as error:
            self.problem = error

    def finished(self, selection: Selection) -> Item:
        try:
            if self.problem is not None:
                raise self.problem
            if self.image is None:
                found = ", ".join(sorted(extension or "nothing" for extension in self.extensions))
                raise BadSample("NoImage", f"the sample has no image, only {found}")
            texts = {_own(extension): self.texts[extension] for extension in sorted(self.texts, key=len, reverse=True)}
            no_texts: list[str] = []
            sample = Sample(self.key, self.image, fields_from(texts, selection.fields, no_texts))
            self.left_out += [(Why.NOT_TEXT, f"{self.key}.{extension}") for extension in no_texts]
        except BadSample as error:
            return Item(self.start, self.size, rejection(self.key, error), self.left_out)
        return Item(self.start, self.size, sample, self.left_out)


def _own(extension: str) -> str:
    """That of a text without that of its image: `txt` of `jpg.txt`."""
    first, _, rest = extension.partition(".")
    return rest.lower() if rest and is_image(first, None) else extension.lower()


def _split(name: str, last: bool) -> tuple[str, str | None]:
    """Key and extension by WebDataset's rule: the first dot of the name's last part; or the last one. The extension is
    None without."""
    while name.startswith("./"):
        name = name[2:]
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.rpartition(".") if last else base.partition(".")
    if not stem or not dot:
        return clean_key(name), None
    return clean_key(folder + slash + stem), clean_key(extension)


def _stray(member: _Member, extension: str | None, problem: BadSample | None) -> Why | None:
    """Why a member is no part of a sample: a README, macOS' `._photo.jpg`, or the like."""
    if is_hidden(member.name):
        return Why.HIDDEN
    return Why.NO_ENDING if extension is None and problem is None else None


def _problem(key: str, member: _Member) -> BadSample | None:
    if member.type in _SPECIAL:
        return BadSample("NotAFile", f"its member {clean_key(member.name)} is {_SPECIAL[member.type]}")
    try:
        check_key(key)
    except BadSample as error:
        return error
    return None


def _content(file: BinaryIO, member: _Member, limit: int) -> bytes:
    check_size(f"its member {clean_key(member.name)}", member.size, limit)
    file.seek(member.data)
    data = file.read(member.size)
    if len(data) < member.size:
        raise StorageError("a tar has become shorter while it was read", member.name, "Leave the corpus as it is")
    return data


def _members(file: BinaryIO, position: int, end: int, whole: bool) -> Iterator[_Member]:
    """The members from the first header at byte `position` to byte `end`.

    whole: whether `end` is the end of the archive, where its mark must lie. Raises _Damage where the archive breaks.
    """
    while whole or position < end:
        start, extended = position, {}
        header = _header(file, position)
        if header is None:  # the end; or, where tars were put one behind the other, the end of one of them
            start = position = _next_block(file, position, end)
            header = _header(file, position) if position < end else None
        while header is not None and header.type in _HEADERS_OF_HEADERS:
            extended.update(_extended(file, header, position))
            position += _BLOCK + _padded(header.size)
            header = _header(file, position)
        if header is None:
            return
        data, kind, name = position + _BLOCK, header.type, extended.get("path", header.name)
        size = 0 if kind in _WITHOUT_CONTENT else int(extended.get("size", header.size))
        if kind == tarfile.GNUTYPE_SPARSE:
            data = _behind_map(file, position)
        elif any(record.startswith("GNU.sparse") for record in extended):
            kind, name = tarfile.GNUTYPE_SPARSE, extended.get("GNU.sparse.name", name)
        yield _Member(name, kind, start, data, size, data + size <= end)
        position = data + _padded(size)


def _next_block(file: BinaryIO, position: int, end: int) -> int:
    """Where the next block begins that isn't empty; `end` where there is none."""
    file.seek(position)
    size = _RECORD
    while position < end and (data := file.read(min(size, end - position))):
        blank = len(data) - len(data.lstrip(b"\0"))
        if blank < len(data):
            return position + blank // _BLOCK * _BLOCK
        position += len(data)
        size = min(2 * size, _READ_SIZE)
    return end


def _header(file: BinaryIO, position: int) -> tarfile.TarInfo | None:
    """The header block at byte `position`; None for the mark of the archive's end. Raises _Damage."""
    file.seek(position)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        empty = position == 0 and not block
        raise _Damage(position, "the file is empty" if empty else "the file ends before the archive does")
    if not any(block):
        return None
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        what = f"no header of a member ({error})" if position else "this is no tar"
        raise _Damage(position, what) from None
    if header.size < 0:
        raise _Damage(position, "a member of negative size")
    return header


def _behind_map(file: BinaryIO, position: int) -> int:
    """Where the content of the GNU sparse file begins whose header lies at byte `position`."""
    file.seek(position)
    follows = file.read(_BLOCK)[_IS_EXTENDED]
    while follows:
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise _Damage(position, "the file ends before the archive does")
        follows = block[_MAP_IS_EXTENDED]
    return file.tell()


def _extended(file: BinaryIO, header: tarfile.TarInfo, position: int) -> dict[str, str]:
    """What a GNU or POSIX header for the next header says: `path`, `size`, ..."""
    if header.size > _LARGEST_HEADER:
        raise _Damage(position, f"a header of {header.size:,} bytes")
    data = file.read(header.size)
    if header.type == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")}
    if header.type not in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
        return {}  # a long link's target, or what holds for the whole archive: neither names nor sizes
    records, at = {}, 0
    try:
        while at < len(data):
            space = data.index(b" ", at, at + _LONGEST_NUMBER)
            stop = at + int(data[at:space])
            if not space < stop <= len(data):
                raise ValueError
            name, value = data[space + 1 : stop].removesuffix(b"\n").split(b"=", 1)
            records[name.decode()] = value.decode("utf-8", "surrogateescape")
            at = stop
        if "size" in records and int(records["size"]) < 0:
            raise ValueError
    except (ValueError, IndexError):
        raise _Damage(position, "an extended header that can't be read") from None
    return records


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
