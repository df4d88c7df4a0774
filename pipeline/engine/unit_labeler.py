"""Labelling one unit by a stage's steps; nothing is written."""

from __future__ import annotations

from collections.abc import Sequence

from ..corpus.corpus import Sample


def _item_rows(samples: Sequence[Sample], views: int, on: str) -> list[tuple[str, int | None]]:
    """(key, view) of every item, as the quarantine names them: no view where a sample has only one."""
    if on != "view" or views == 1:
        return [(sample.key, None) for sample in samples]
    return [(sample.key, view) for sample in samples for view in range(views)]
