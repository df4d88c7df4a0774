"""What commands print on."""

from __future__ import annotations

from rich.console import Console


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """rich itself would end the process without a word."""
        self.quiet = True
        raise


def plain_console(stderr: bool = False) -> Console:
    """Prints texts as they are: paths and captions hold [brackets] and :colons: that mean nothing to rich."""
    return _Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def counted(number: int, noun: str, several: str = "") -> str:
    """How many there are: 1 file, 2,000 files. several: the plural, where it isn't made with an s."""
    return f"{number:,} {noun if number == 1 else several or f'{noun}s'}"
