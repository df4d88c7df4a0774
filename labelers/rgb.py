"""The view itself, as a modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .contract.kinds import Image
from .contract.labeler import Batch, Labeler, Modality


class Rgb(Labeler):
    """The pixels of the view.

    `rgb`: uint8 (size, size, 3), RGB.
    """

    makes = (Modality("rgb", Image(channels=3)),)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        assert batch.images is not None
        return {"rgb": list(batch.images)}
