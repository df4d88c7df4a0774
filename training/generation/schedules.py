"""How many tokens of an image are decided in each step, and how freely.

As ml-4m has them (fourm/utils/generation.py), but that no step decides less than nothing, and that one token has a
temperature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

TokenSchedule = Literal["cosine", "linear"]

COLDEST = 1e-9
"""The least temperature that a falling schedule comes to."""


def token_counts(tokens: int, steps: int, schedule: TokenSchedule) -> tuple[int, ...]:
    """Positive numbers that add up to `tokens`, of at most so many steps. linear: nearly equal ones. cosine: few at
    first, when little is known, and few at the end (MaskGIT, Chang et al. 2022, has the shape).

    Raises ValueError for less than one step, or fewer tokens than none.
    """
    if tokens < 0 or steps < 1:
        raise ValueError(f"{tokens} tokens in {steps} steps can't be")
    if schedule == "linear":
        edges = [tokens * step // steps for step in range(steps + 1)]
        return tuple(sorted((high - low for low, high in pairwise(edges) if high > low), reverse=True))
    shares = [(1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    counts, left = list[int](), tokens
    for before, after in pairwise(shares):
        counts.append(min(round((before - after) * tokens), left))
        left -= counts[-1]
    return tuple(n for n in (*counts, left) if n)


def temperatures(counts: Sequence[int], first: float, schedule: str) -> tuple[float, ...]:
    """One a step. constant; linear: falls with the tokens that are still unknown; onex:LEAST:POWER: falls towards
    LEAST, faster the larger POWER is.

    Raises ValueError for another schedule.
    """
    tokens, known = sum(counts), 0
    name, *numbers = schedule.split(":")
    found = list[float]()
    for step, count in enumerate(counts):
        known += count
        if name == "constant" and not numbers:
            found.append(first)
        elif name == "linear" and not numbers:
            found.append(max(first * (tokens - known + count) / tokens, COLDEST))
        elif name == "onex" and len(numbers) == 2:
            least, power = map(float, numbers)
            if not (0 <= least < math.inf and 0 < power < math.inf):
                raise ValueError(f"temperature schedule {schedule!r}: LEAST is 0 or more, POWER more than 0")
            fall = (1 - known / tokens) * _one_by_x(tokens, step, power)
            found.append(max(least + (first - least) * fall, COLDEST))
        else:
            raise ValueError(f"temperature schedule {schedule!r}: constant, linear or onex:LEAST:POWER")
    return tuple(found)


def _one_by_x(points: int, place: int, power: float) -> float:
    """1 / x^power at one of so many points between x = 1 and 100, scaled to 1 ... 0."""
    if points == 1:
        return 0.0
    low = 100.0**-power
    return ((1 + 99 * place / (points - 1)) ** -power - low) / (1 - low)
