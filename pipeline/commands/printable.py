"""Texts that are safe to print. Imports nothing: it is used where an import was interrupted, too."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""The text with control, direction and other invisible characters as escapes (\x1b), so that it can't steer a
    terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
