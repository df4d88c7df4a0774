"""A labeler that says where it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenloom import Batch, Labeler, Modality, Text


class Where(Labeler):
    """The device that the engine gave it, as torch names it."""

    makes = (Modality("where", Text()),)

    def load(self, device: str) -> None:
        self._device = device

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        return {"where": [self._device] * len(batch)}
