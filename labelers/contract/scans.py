"""Scans of a JPEG: a progressive one is refined by each, which costs a pass over all pixels, however few its bytes."""

from __future__ import annotations

import re

MAX_SCANS = 64
"""Encoders write about ten; libjpeg's limit for fuzzing is 500, which at 89 megapixels is minutes."""

_START_OF_SCAN = b"\xff\xda"
_LENGTHLESS = frozenset((0x01, *range(0xD0, 0xDA)))
_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
"""What ends a scan's data, in which FF is followed by 00, or by a restart marker."""
_END = 0xD9


def has_too_many_scans(data: bytes) -> bool:
    """Whether the first picture of a JPEG has more than MAX_SCANS. Previews and further pictures aren't counted."""
    if data.count(_START_OF_SCAN) <= MAX_SCANS:
        return False
    scans, at = 0, 2
    while scans <= MAX_SCANS and (found := _MARKER.search(data, at)) and found[1][0] != _END:
        at = found.end()
        if found[1][0] not in _LENGTHLESS:
            at += int.from_bytes(data[at : at + 2], "big")
        scans += found[1][0] == _START_OF_SCAN[1]
    return scans > MAX_SCANS
