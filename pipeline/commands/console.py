"""What commands print on."""

from __future__ import annotations

from rich.console import Console


def plain_console(stderr: bool = False) -> Console:
    """Prints texts as they are: paths and captions hold [brackets] and :colons: that mean nothing to rich."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def counted(number: int, noun: str, several: str = "") -> str:
    """How many there are: 1 file, 2,000 files. several: the plural, where it isn't made with an s."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"


def printable(text: str) -> str:
    r"""The text with control, direction and other invisible characters as escapes (\x1b), so that it can't steer a
    terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
