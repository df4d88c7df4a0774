"""What of a corpus isn't taken: counted, the first of it named, with the way to take it."""

from __future__ import annotations

from collections.abc import Sequence

_FEW = 3


def few(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = f" and {len(names) - _FEW:,} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more
