"""InstanceSet: the label of the kind `instances`, things in an image with boxes and what else is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .crops import crop_map
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

        rle: Any = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
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

    @classmethod
    def empty(
        cls,
        masks: bool = False,
        scores: bool = False,
        texts: bool = False,
        attributes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> InstanceSet:
        """No things, with the parts that a kind promises. attributes: the shape of each per instance."""
        return cls(
            boxes=np.zeros((0, 4), np.float32),
            labels=(),
            scores=np.zeros(0, np.float32) if scores else None,
            texts=() if texts else None,
            masks=() if masks else None,
            attributes={name: np.zeros((0, *shape), np.float32) for name, shape in (attributes or {}).items()},
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InstanceSet) and self.to_json() == other.to_json()

    def take(self, indices: Sequence[int] | np.ndarray) -> InstanceSet:
        """The instances at `indices`, in that order."""
        places = [int(index) for index in indices]
        return InstanceSet(
            boxes=self.boxes[places],
            labels=[self.labels[place] for place in places],
            scores=None if self.scores is None else self.scores[places],
            texts=None if self.texts is None else [self.texts[place] for place in places],
            masks=None if self.masks is None else [self.masks[place] for place in places],
            attributes={name: values[places] for name, values in self.attributes.items()},
        )

    def crop(self, view: View) -> InstanceSet:
        """What `view` sees of a whole image's instances: boxes clipped and mirrored, masks at the view's size.

        Instances whose box lies outside are dropped, and those of whose mask the view has no pixel. Where the view cuts
        a box, it becomes that of what is seen of the mask. Scores, texts and attributes come along as they are.
        """
        left, width = view.left / view.image_width, view.width / view.image_width
        top, height = view.top / view.image_height, view.height / view.image_height
        boxes = (self.boxes.astype(np.float64) - [left, top, left, top]) / [width, height, width, height]
        clipped = boxes.clip(0, 1)
        low, high = clipped[:, :2], clipped[:, 2:]
        # a box without width that lies inside stays; one that only touches the border from outside goes
        flat_inside = (boxes[:, :2] == boxes[:, 2:]) & (boxes[:, :2] == low)
        kept = [int(index) for index in np.flatnonzero(((high > low) | flat_inside).all(axis=1))]
        masks = None
        if self.masks is not None:
            parts = {index: crop_map(self.masks[index].to_array(), view, nearest=True) for index in kept}
            kept = [index for index in kept if parts[index].any()]
            masks = [Mask.from_array(parts[index]) for index in kept]
            for index in kept:
                if (clipped[index] != boxes[index]).any():
                    clipped[index] = _box_seen(self.masks[index], view)
        if view.hflip:
            clipped[:, [0, 2]] = 1 - clipped[:, [2, 0]]
        return replace(self.take(kept), boxes=clipped[kept].astype(np.float32), masks=masks)

    def problem(self, masks: bool, scores: bool, texts: bool, attributes: Mapping[str, tuple[int, ...]]) -> str | None:
        """What is wrong, if anything, measured by which parts there must be. attributes: shapes per instance."""
        return (
            self._box_problem()
            or _strings_problem("labels", self.labels, len(self))
            or _presence_problem("scores", self.scores, scores)
            or (scores and _floats_problem("scores", self.scores, (len(self),)))
            or _presence_problem("texts", self.texts, texts)
            or (texts and _strings_problem("texts", self.texts, len(self)))
            or _presence_problem("masks", self.masks, masks)
            or (masks and self._mask_problem())
            or self._attribute_problem(attributes)
            or None
        )

    def _box_problem(self) -> str | None:
        shape = (len(self.boxes) if isinstance(self.boxes, np.ndarray) and self.boxes.ndim else 0, 4)
        problem = _floats_problem("boxes", self.boxes, shape)
        if problem:
            return problem
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        bad = np.flatnonzero(((low < 0) | (high > 1) | (low > high)).any(axis=1))
        if not len(bad):
            return None
        box = [round(side, 4) for side in self.boxes[bad[0]].tolist()]
        return f"box {bad[0]} is {box}, which is not 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1"

    def _mask_problem(self) -> str | None:
        masks = self.masks or ()
        if len(masks) != len(self):
            return f"there are {len(masks)} masks for {len(self)} boxes"
        for index, mask in enumerate(masks):
            if not isinstance(mask, Mask):
                return f"mask {index} is a {type(mask).__name__}, not a Mask (see Mask.from_array)"
        sizes = sorted({(mask.height, mask.width) for mask in masks})
        return f"the masks differ in size: {sizes}" if len(sizes) > 1 else None

    def _attribute_problem(self, attributes: Mapping[str, tuple[int, ...]]) -> str | None:
        if set(self.attributes) != set(attributes):
            return f"there are the attributes {sorted(self.attributes)}; the kind has {sorted(attributes)}"
        problems = (
            _floats_problem(f"attribute {name}", self.attributes[name], (len(self), *shape))
            for name, shape in attributes.items()
        )
        return next((problem for problem in problems if problem), None)

    def to_json(self) -> dict[str, Any]:
        """JSON values; numbers as the doubles that equal the float32s. Parts that are None are left out."""
        values: dict[str, Any] = {"boxes": self.boxes.tolist(), "labels": list(self.labels)}
        if self.scores is not None:
            values["scores"] = self.scores.tolist()
        if self.texts is not None:
            values["texts"] = list(self.texts)
        if self.masks is not None:
            values["masks"] = [{"size": [mask.height, mask.width], "counts": mask.counts} for mask in self.masks]
        if self.attributes:
            values["attributes"] = {
                name: {"shape": list(array.shape[1:]), "values": array.tolist()}
                for name, array in self.attributes.items()
            }
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> InstanceSet:
        """The instances that `to_json` wrote down."""
        count = len(values["boxes"])
        scores, masks = values.get("scores"), values.get("masks")
        return cls(
            boxes=np.asarray(values["boxes"], np.float32).reshape(count, 4),
            labels=values["labels"],
            scores=None if scores is None else np.asarray(scores, np.float32),
            texts=values.get("texts"),
            masks=None if masks is None else [Mask(mask["size"][0], mask["size"][1], mask["counts"]) for mask in masks],
            attributes={
                name: np.asarray(array["values"], np.float32).reshape(count, *array["shape"])
                for name, array in values.get("attributes", {}).items()
            },
        )


def _box_seen(mask: Mask, view: View) -> np.ndarray:
    """The box around the mask's pixels in the view, float64 (4,), as shares of the view before it is mirrored.

    Measured at the mask's own resolution, not at the view's. There must be such a pixel.
    """
    scale = np.array([mask.width / view.image_width, mask.height / view.image_height])
    start, end = scale * [view.left, view.top], scale * [view.left + view.width, view.top + view.height]
    (left, top), (right, bottom) = np.floor(start).astype(int), np.ceil(end).astype(int)
    part = mask.to_array()[top:bottom, left:right]
    columns, rows = np.flatnonzero(part.any(axis=0)), np.flatnonzero(part.any(axis=1))
    low, high = np.array([left + columns[0], top + rows[0]]), np.array([left + columns[-1], top + rows[-1]]) + 1
    return np.concatenate([low - start, high - start]).clip(0, np.tile(end - start, 2)) / np.tile(end - start, 2)


def _presence_problem(name: str, part: Any, promised: bool) -> str | None:
    if promised and part is None:
        return f"there are no {name}, which the kind promises"
    return f"there are {name}, of which the kind knows nothing" if part is not None and not promised else None


def _floats_problem(name: str, array: Any, shape: tuple[int, ...]) -> str | None:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        found = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
        return f"{name}: {found}, not a float32 array"
    if array.shape != shape:
        return f"{name}: shape {array.shape}, not {shape}"
    bad = int(array.size - np.isfinite(array).sum())
    return f"{name}: {bad} of {array.size} numbers are NaN or infinite" if bad else None


def _strings_problem(name: str, strings: Any, count: int) -> str | None:
    if isinstance(strings, str) or not isinstance(strings, Sequence):
        return f"{name}: a {type(strings).__name__}, not a list of str"
    if len(strings) != count:
        return f"there are {len(strings)} {name} for {count} boxes"
    for index, string in enumerate(strings):
        if not isinstance(string, str):
            return f"{name}[{index}] is a {type(string).__name__}, not a str"
        try:
            string.encode()
        except UnicodeEncodeError:
            return f"{name}[{index}] holds half of a surrogate pair: {string!r}"
    return None
