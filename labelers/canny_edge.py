"""Edges by Canny's detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from .contract.kinds import Image
from .contract.labeler import Batch, Labeler, Modality


class CannyEdgeParams(BaseModel):
    """low, high: thresholds of the gradient. Edges begin where it passes `high` and go on while it passes `low`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    low: float = Field(100, ge=0)
    high: float = Field(200, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> CannyEdgeParams:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) must not be above high ({self.high:g})")
        return self


class CannyEdge(Labeler):
    """Edges by OpenCV's Canny on the RGB view, as 4M-21 makes them (arXiv 2406.09406).

    `canny_edge`: uint8 (size, size), 255 on edges and 0 elsewhere.
    """

    makes = (Modality("canny_edge", Image(channels=1, content="intensity")),)
    Params: ClassVar[type[BaseModel]] = CannyEdgeParams

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        assert batch.images is not None
        return {"canny_edge": [self._edges(image) for image in batch.images]}

    def _edges(self, image: np.ndarray) -> np.ndarray:
        import cv2

        return cv2.Canny(np.ascontiguousarray(image), self.params.low, self.params.high)
