"""Names of files, which may hold anything, and texts from outside, as text that can be written and shown."""

from __future__ import annotations

import re

_HALF = re.compile("[\ud800-\udfff]")
_HIDDEN = re.compile(r"(^|/)\.(?!\.?(/|$))")


def clean_key(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8 become `\\xe9`, and halves of surrogate pairs `\\ud800`, so that
    different names stay different keys."""
    return name if name.isascii() else _HALF.sub(_escaped, name)


def clean_text(text: str) -> str:
    """The text with U+FFFD for every half of a surrogate pair, which UTF-8 can't hold."""
    return text if text.isascii() else _HALF.sub("\ufffd", text)


def is_hidden(path: str) -> bool:
    """Whether the file, or a folder that it lies in, is hidden: .DS_Store, ._photo.jpg, .ipynb_checkpoints/."""
    return _HIDDEN.search(path) is not None


def _escaped(half: re.Match[str]) -> str:
    code = ord(half[0])
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"  # as surrogateescape has bytes
