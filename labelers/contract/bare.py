"""Image files without all that isn't pixels: for sound pictures with a broken profile or text beside them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"))
_PNG_EXIF = b"Raw profile type exif\0"
_LARGEST_EXIF = 2**18

_JPEG_START_OF_SCAN, _JPEG_COMMENT = 0xDA, 0xFE
_JPEG_APPLICATIONS = range(0xE0, 0xF0)
_JPEG_JFIF, _JPEG_EXIF, _JPEG_ADOBE = 0xE0, 0xE1, 0xEE


def without_metadata(data: bytes) -> bytes | None:
    """The JPEG or PNG without colour profiles, texts, previews and comments, none of which change pixels here; EXIF
    that is whole stays, since it tells how the picture is turned. None for other files, and where that changes nothing.
    """
    if data.startswith(_PNG):
        bare = _PNG + b"".join(chunk for chunk in _png_chunks(data) if _png_keeps(chunk))
    elif data.startswith(b"\xff\xd8\xff"):
        bare = b"\xff\xd8" + b"".join(_jpeg_parts(data))
    else:
        return None
    return None if bare == data else bare


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """The chunks, each whole: length, name, content, checksum."""
    at = len(_PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at:end]
        at = end


def _png_keeps(chunk: bytes) -> bool:
    name, content = chunk[4:8], chunk[8:-4]
    if name in _PNG_PIXELS:
        return True
    if struct.unpack(">I", chunk[-4:])[0] != zlib.crc32(chunk[4:-4]) or len(content) > _LARGEST_EXIF:
        return False
    if name == b"zTXt" and content.startswith(_PNG_EXIF):
        return _unpacks(content[len(_PNG_EXIF) + 1 :])
    return name == b"eXIf" or (name == b"tEXt" and content.startswith(_PNG_EXIF))


def _unpacks(compressed: bytes) -> bool:
    """Whether that is something of a size that can be looked at."""
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(compressed, _LARGEST_EXIF)
    except zlib.error:
        return False
    return not unpacking.unconsumed_tail


def _jpeg_parts(data: bytes) -> Iterator[bytes]:
    """The segments before the pixels that are kept, then all the rest."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _JPEG_START_OF_SCAN:
        if data[at + 1] == 0xFF:  # padding
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if _jpeg_keeps(data[at + 1], data[at + 4 : at + 10]):
            yield data[at:end]
        at = end
    yield data[at:]


def _jpeg_keeps(marker: int, beginning: bytes) -> bool:
    if marker == _JPEG_EXIF:
        return beginning == b"Exif\0\0"
    return marker in (_JPEG_JFIF, _JPEG_ADOBE) or marker not in (*_JPEG_APPLICATIONS, _JPEG_COMMENT)
