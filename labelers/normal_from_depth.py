"""Surface normals from a depth map by geometry alone, where no normal estimator is to be run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.kinds import Image, Kind
from .contract.labeler import Batch, Labeler, Resources
from .depth import INVERSE, METRE, Unit
from .normal import NORMALS, to_bytes


class NormalFromDepthParams(BaseModel):
    """depth: the unit of the recipe's depth, "relative inverse" for the default depth weights. field_of_view: of the
    longer side, in degrees; nobody knows a photograph's, and 55 is a 35 mm lens on full frame (54.4), which ZoeDepth's
    code assumes too. reach: with relative depth, how many times as far as the nearest point the farthest is taken to
    be, since no such prediction tells."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    depth: Unit = INVERSE
    field_of_view: float = Field(default=55.0, gt=1, lt=170)
    reach: float = Field(default=10.0, gt=1, le=1000)


class NormalFromDepth(Labeler):
    """Surface normals computed from `depth`: unprojected by a pinhole camera, then the cross product of its slopes.

    `normal`: uint8 (height, width, 3) of the depth map's size, (n + 1) / 2 * 255 of unit vectors that face the camera:
    x to the right, y up, z towards the viewer. A choice instead of the labeler `normal`, whose modality it makes. With
    relative depth they are rough, for depth is then only known up to scale and shift; see `to_distance`.
    """

    makes = (NORMALS,)
    on = "image"
    requires = ("depth",)
    resources = Resources(cpus=1.0)
    Params: ClassVar[type[BaseModel]] = NormalFromDepthParams

    def check_needs(self, kinds: Mapping[str, Kind]) -> None:
        depth = kinds["depth"]
        if isinstance(depth, Image) and depth.unit not in (None, self.params.depth):
            raise ValueError(
                f"the recipe's depth is in the unit {depth.unit!r}, not {self.params.depth!r}: write "
                f"`params: {{depth: {depth.unit}}}`"
            )

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        return {"normal": [self._normals(depth) for depth in batch.labels["depth"]]}

    def _normals(self, depth: np.ndarray) -> np.ndarray:
        metres = depth.astype(np.float64)
        distance = metres if self.params.depth == METRE else to_distance(metres, self.params.reach)
        return to_bytes(normals_of(distance, self.params.field_of_view))


def to_distance(inverse: np.ndarray, reach: float) -> np.ndarray:
    """Relative inverse depth as distance along the optical axis, in units of the nearest point's.

    The prediction is a / distance + b with unknown a > 0 and b. They are chosen so that the nearest pixel, the largest
    value, is at distance 1 and the farthest at `reach`. A map of one value is a plane at distance 1.
    """
    low, high = inverse.min(), inverse.max()
    if high == low:
        return np.ones_like(inverse)
    return 1 / (1 / reach + (1 - 1 / reach) * (inverse - low) / (high - low))


def normals_of(distance: np.ndarray, field_of_view: float) -> np.ndarray:
    """Unit normals (height, width, 3) of the surface seen at `distance` (height, width) along the optical axis.

    A pinhole camera whose longer side spans `field_of_view` degrees and whose axis goes through the middle. Slopes are
    central differences of the 3D points, one-sided at the border. x right, y up, z towards the viewer.
    """
    height, width = distance.shape
    # a map of one row or column has no slope across: it is taken to go on unchanged
    padded = np.pad(distance, ((0, height == 1), (0, width == 1)), mode="edge")
    focal = max(height, width) / 2 / math.tan(math.radians(field_of_view) / 2)
    x = (np.arange(padded.shape[1]) + 0.5 - width / 2) / focal
    y = (np.arange(padded.shape[0]) + 0.5 - height / 2) / focal
    depth = np.maximum(padded, 1e-6)  # a point in the camera itself has no direction
    points = np.stack([depth * x, -depth * y[:, None], -depth], axis=-1)
    normals = np.cross(np.gradient(points, axis=1), -np.gradient(points, axis=0))
    away = (normals * points).sum(axis=-1, keepdims=True) > 0  # at steps so steep that a slope folds back
    normals = np.where(away, -normals, normals)[:height, :width]
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-300)
