"""Refusals: what the corpus reader refused, in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from .samples import Rejection


def why_refused(refused: Iterable[Rejection], tried: int) -> list[str]:
    """A line for each finding, with the first that it was: of samples, of which so many were read, then of parts of
    shards."""
    by_finding: defaultdict[str, list[Rejection]] = defaultdict(list)
    broken: list[str] = []
    for one in refused:
        if one.is_of_shard:
            broken.append(one.reason)
        elif not one.is_note:
            by_finding[one.error].append(one)
    lines = [
        f"{len(found):,} of {tried:,} refused ({finding}), the first {found[0].key}: {found[0].reason}"
        for finding, found in by_finding.items()
    ]
    parts = f"{len(broken):,} parts" if len(broken) > 1 else "1 part"
    return [*lines, *([f"{parts} of the corpus can't be read, the first: {broken[0]}"] if broken else [])]


def how_many(samples: int, parts: int) -> str:
    """How many samples were refused, and how many parts of the corpus can't be read; empty where neither."""
    said = [f"{samples:,} sample{'' if samples == 1 else 's'} refused by the corpus reader"] if samples else []
    said += [f"{parts:,} part{'' if parts == 1 else 's'} of the corpus that can't be read"] if parts else []
    return ", ".join(said)
