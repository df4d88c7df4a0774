"""Edges of Segment Anything's masks, as 4M-21 makes them (Bachmann et al. 2024, arXiv 2406.09406)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel

from .canny_edge import CannyEdgeParams
from .contract.instances import InstanceSet
from .contract.kinds import Image
from .contract.labeler import Batch, Labeler, Modality


class SamEdge(Labeler):
    """Edges by OpenCV's Canny on the map of SAM's instances.

    `sam_edge`: uint8 (height, width), 255 on edges and 0 elsewhere. On the map every instance has a colour of its own,
    smaller ones lie over larger ones, and the rest is black. An image without instances, or of one that covers it all,
    has no edges. For the edges of the paper that introduced SAM, by way of mask probabilities, see `sam_soft_edge`.
    """

    version = 2
    makes = (Modality("sam_edge", Image(channels=1, content="intensity")),)
    on = "image"
    requires = ("sam_instance",)
    Params: ClassVar[type[BaseModel]] = CannyEdgeParams

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        import cv2

        assert batch.images is not None
        maps = [
            instance_map(instances, image.shape[0], image.shape[1])
            for instances, image in zip(batch.labels["sam_instance"], batch.images, strict=True)
        ]
        return {"sam_edge": [cv2.Canny(drawn, self.params.low, self.params.high) for drawn in maps]}


def instance_map(instances: InstanceSet, height: int, width: int) -> np.ndarray:
    """uint8 (height, width, 3): each mask in a colour of its own, the smaller over the larger, on black.

    Of equally large masks the first is drawn first. The edges depend on the colours: they belong to the label, not to
    how instances are shown.
    """
    masks = [mask.to_array() for mask in instances.masks or ()]
    order = sorted(range(len(masks)), key=lambda index: -int(masks[index].sum()))
    drawn = np.zeros((height, width, 3), np.uint8)
    for colour, index in zip(_colours(len(masks)), order, strict=True):
        drawn[masks[index]] = colour
    return drawn


def _colours(count: int) -> np.ndarray:
    """uint8 (count, 3): colours far from each other and from black, however many there are.

    The additive recurrence of Roberts 2018, "The unreasonable effectiveness of quasirandom sequences", in the cube from
    64 to 255.
    """
    root = 1.2207440846057596  # of x^4 = x + 1
    shares = np.arange(1, count + 1)[:, None] * root ** -np.arange(1.0, 4.0) % 1
    return (64 + 191 * shares).round().astype(np.uint8)
