"""A list that stays empty, to be put where Ray keeps what nobody wants kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class TakesNothing(list[Any]):
    """Takes nothing in."""

    def extend(self, values: Iterable[Any], /) -> None:
        pass
