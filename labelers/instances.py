"""InstanceSet: the label of the kind `instances`, things in an image with boxes and what else is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .views import View


@dataclass(frozen=True)
class Mask:
    """A binary mask as COCO run-length code (pycocotools' compressed counts, ASCII)."""

    height: int
    width: int
    counts: str

    @classmethod
    def from_array(cls, mask: np.ndarray) -> Mask:
        """mask: bool or 0/1 (height, width)."""
        from pycocotools import mask as coco

        rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
        return cls(mask.shape[0], mask.shape[1], rle["counts"].decode("ascii"))

    def to_array(self) -> np.ndarray:
        """bool (height, width)."""
        from pycocotools import mask as coco

        rle: Any = {"size": [self.height, self.width], "counts": self.counts.encode("ascii")}
        return coco.decode(rle).astype(bool)


@dataclass(frozen=True, eq=False)
class InstanceSet:
    """N things in one frame (a view or a whole image).

    boxes: float32 (N, 4), x0 y0 x1 y1 as shares of the frame's width and height, 0 <= x0 <= x1 <= 1.
    labels: the class name of each. scores: float32 (N,) or None. texts: what each says, or None. masks: None or one
    per instance, all of one size that spans the frame. attributes: float32 (N, ...) arrays by name.
    """

    boxes: np.ndarray
    labels: Sequence[str]
    scores: np.ndarray | None = None
    texts: Sequence[str] | None = None
    masks: Sequence[Mask] | None = None
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.boxes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InstanceSet) and self.to_json() == other.to_json()
