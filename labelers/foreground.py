"""Foreground objects without supervision: TokenCut (Wang et al. 2022, arXiv 2202.11539) on the DINOv2 map.

Further objects are found as MaskCut does in CutLER (Wang et al. 2023, arXiv 2301.11320): cut, take the object's patches
out of the graph, cut again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.instances import InstanceSet, Mask
from .contract.kinds import Instances
from .contract.labeler import Batch, Labeler, Modality, Resources

WEAK_EDGE = 1e-5
"""Weight of an edge between unlike patches: the graph stays connected (TokenCut, section 3.2)."""


class ForegroundParams(BaseModel):
    """max_instances: objects per image, at most. threshold: cosine from which two patches count as alike (the paper's
    tau). min_score: objects that stand out less are dropped, and end the search. min_area: of an object, as a share
    of the view."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_instances: int = Field(default=3, ge=1, le=20)
    threshold: float = Field(default=0.2, ge=-1, lt=1)
    min_score: float = Field(default=0.2, ge=0, le=1)
    min_area: float = Field(default=0.01, ge=0, lt=1)


@dataclass(frozen=True)
class Cut:
    """One object on the patch grid. soft: the eigenvector less the cut's place, positive on the object's side.
    component: bool, the connected patches of the object. Both are (height, width)."""

    soft: np.ndarray
    component: np.ndarray
    score: float


class Foreground(Labeler):
    """Objects that stand out from the rest of the view, found by cutting the graph of DINOv2's patches.

    `foreground`: Instances labelled "object", the most salient first, with masks of the view's size that don't
    overlap. A score says how much more alike an object's patches are to each other than to the patches outside:
    the difference of the two mean cosines, cut to [0, 1].
    """

    makes = (Modality("foreground", Instances(masks=True, scores=True)),)
    requires = ("dinov2",)
    resources = Resources(cpus=1.0)
    Params: ClassVar[type[BaseModel]] = ForegroundParams

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        images = np.asarray(batch.images)
        return {"foreground": [self._objects(*pair) for pair in zip(batch.labels["dinov2"], images, strict=True)]}

    def _objects(self, feature_map: np.ndarray, image: np.ndarray) -> InstanceSet:
        size = image.shape[:2]
        free = np.ones(size, bool)
        masks, scores = [], []
        for cut in find_objects(feature_map, self.params):
            mask = draw_mask(cut, image) & free
            if mask.mean() >= self.params.min_area:
                free &= ~mask
                masks.append(mask)
                scores.append(cut.score)
        boxes = np.array([_box(mask) for mask in masks], np.float32).reshape(-1, 4)
        return InstanceSet(
            boxes,
            ["object"] * len(masks),
            scores=np.array(scores, np.float32),
            masks=[Mask.from_array(mask) for mask in masks],
        )


def find_objects(feature_map: np.ndarray, params: ForegroundParams) -> list[Cut]:
    """Objects on the patch grid of a feature map (channels, height, width), the most salient first.

    The search ends with the first object that scores less than min_score, and where fewer than a twentieth of the
    patches are left.
    """
    grid = feature_map.shape[1:]
    features = feature_map.reshape(len(feature_map), -1).T.astype(np.float64)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    cosines = features @ features.T
    left = np.ones(len(features), bool)
    cuts: list[Cut] = []
    while len(cuts) < params.max_instances and left.mean() > 0.05:
        cut = _cut(cosines, left, grid, params.threshold)
        if cut is None or cut.score < params.min_score:
            break
        cuts.append(cut)
        left &= ~cut.component.ravel()
    return cuts


def _cut(cosines: np.ndarray, left: np.ndarray, grid: tuple[int, int], threshold: float) -> Cut | None:
    """The most salient object among the patches that are `left`, by a normalised cut of their graph in two.

    The cut is the second smallest solution of (D - W) y = lambda D y, parted at its mean. Foreground is the side with
    the largest |y| (TokenCut, section 3.3), unless that side holds three of the grid's corners (MaskCut's rule).
    None where all patches are alike.
    """
    from scipy.linalg import eigh
    from scipy.ndimage import label as connected

    alike = cosines[np.ix_(left, left)] > threshold
    if alike.all():
        return None
    weights = np.where(alike, 1.0, WEAK_EDGE)
    degrees = np.diag(weights.sum(axis=1))
    _, vectors = eigh(degrees - weights, degrees, subset_by_index=[1, 1])
    y = vectors[:, 0]
    y = y * np.sign(y[np.abs(y).argmax()])
    full = np.full(left.size, np.nan)
    full[left] = y - y.mean()
    soft = full.reshape(grid)
    corners = soft[[0, 0, -1, -1], [0, -1, 0, -1]]
    if (corners > 0).sum() >= 3:
        soft = -soft
    regions: np.ndarray = connected(soft > 0)[0]  # type: ignore[index]
    component = regions == regions[np.unravel_index(np.nanargmax(soft), grid)]
    inside = component.ravel()
    outside = left & ~inside
    score = cosines[np.ix_(inside, inside)].mean() - cosines[np.ix_(inside, outside)].mean()
    return Cut(_balanced(soft, component), component, float(np.clip(score, 0, 1)))


def _balanced(soft: np.ndarray, component: np.ndarray) -> np.ndarray:
    """`soft` in [-1, 1], positive in the component alone, both sides' means equally far from 0.

    Patches that other objects took (NaN), and other components on the foreground's side, count as background.
    """
    inside = soft / soft[component].mean()
    background = soft < 0
    outside = np.where(background, -soft / soft[background].mean(), -1)
    return np.where(component, inside, outside).clip(-1, 1).astype(np.float32)


def draw_mask(cut: Cut, image: np.ndarray) -> np.ndarray:
    """The object as bool (height, width) at the image's size, its edge drawn to the image's own edges.

    The soft cut is scaled up bilinearly and goes through a guided filter (He et al. 2010) whose guide is the image's
    grey value and whose window reaches one patch each way. Threads and crumbs thinner than a third of a patch go.
    """
    import cv2

    height, width = image.shape[:2]
    soft = cv2.resize(cut.soft, (width, height), interpolation=cv2.INTER_LINEAR)
    patch = max(height // cut.soft.shape[0], 1)
    guide = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    mask = (_guided_filter(soft, guide, radius=patch, epsilon=1e-3) > 0).astype(np.uint8)
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (patch // 3 | 1, patch // 3 | 1))
    return cv2.morphologyEx(cv2.morphologyEx(mask, cv2.MORPH_OPEN, brush), cv2.MORPH_CLOSE, brush).astype(bool)


def _guided_filter(values: np.ndarray, guide: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """Smooth `values` so that its edges follow `guide`'s: in each window, values = a * guide + b by least squares."""
    import cv2

    def mean(array: np.ndarray) -> np.ndarray:
        return cv2.blur(array, (2 * radius + 1, 2 * radius + 1))

    guide_mean, value_mean = mean(guide), mean(values)
    a = (mean(guide * values) - guide_mean * value_mean) / (mean(guide * guide) - guide_mean**2 + epsilon)
    b = value_mean - a * guide_mean
    return mean(a) * guide + mean(b)


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
