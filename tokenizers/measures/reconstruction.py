"""What tokens lose: the errors between a label and what its tokens decode to, in the units of the label's field."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

import numpy as np

from ...labelers.contract.instances import InstanceSet, Mask
from ...labelers.contract.kinds import FeatureMap, Image, Instances, Kind, Record, Text, Vector
from .measures import (
    ClassCounts,
    depth_errors,
    edge_f1,
    mask_ious,
    mean_angle,
    mean_cosine,
    psnr,
    relative_difference,
    rotation_angles,
    ssim,
    word_f1,
    words_of,
)


@dataclass(frozen=True)
class Measure:
    """How an error is called and said. title: what it measures, in a sentence. better: which way it improves."""

    label: str
    title: str
    better: Literal["higher", "lower"]
    unit: Literal["dB", "°", "%", ""] = ""

    def say(self, value: float) -> str:
        """The value as people write it: 27.3 dB, 4.5°, 91.2 %, 0.913."""
        if self.unit == "%":
            return f"{100 * value:.3g} %" if abs(value) < 0.01 else f"{100 * value:.1f} %"
        return f"{value:.3f}" if not self.unit else f"{value:.1f}{'' if self.unit == '°' else ' '}{self.unit}"


MEASURES: dict[str, Measure] = {
    "psnr": Measure("PSNR", "peak signal-to-noise ratio", "higher", "dB"),
    "ssim": Measure("SSIM", "structural similarity", "higher"),
    "edge_f1": Measure("edge F1", "F1 of edge pixels, without tolerance", "higher"),
    "abs_rel": Measure("AbsRel", "mean relative error of depth, after aligning scale and shift", "lower"),
    "delta1": Measure("δ1", "share of pixels within a factor of 1.25, after aligning scale and shift", "higher", "%"),
    "angle": Measure("angle", "mean angle between normals", "lower", "°"),
    "miou": Measure("mIoU", "mean intersection over union of classes", "higher", "%"),
    "accuracy": Measure("accuracy", "share of pixels whose class is right", "higher", "%"),
    "kept": Measure("kept", "share of instances that have a counterpart", "higher", "%"),
    "mask_iou": Measure("mask IoU", "mean intersection over union of instances' masks", "higher", "%"),
    "box_error": Measure("box", "mean displacement of box sides, as a share of the frame", "lower", "%"),
    "joint_angle": Measure("joints", "mean angle between joint rotations", "lower", "°"),
    "orientation": Measure("orientation", "mean angle between bodies' orientations", "lower", "°"),
    "cosine": Measure("cosine", "mean cosine between vectors", "higher"),
    "exact": Measure("exact", "share of labels that come back whole; of texts, less case and accents", "higher", "%"),
    "word_f1": Measure("word F1", "F1 of shared words, without case and accents", "higher"),
    "fields": Measure("fields", "share of fields that come back as they were", "higher", "%"),
    "numbers": Measure("numbers", "mean relative difference of numbers", "lower", "%"),
}
"""By their names in what `errors` gives. Values of measures in % are shares, 0..1."""


def errors(kind: Kind, label: Any, decoded: Any) -> dict[str, float]:
    """How far `decoded` is from `label`, by the names in MEASURES; empty for kinds that aren't tokenised.

    Which there are depends on the kind, and on what the label holds: nothing can be said of the angles in a picture
    without normals. All values are finite.

    colour: PSNR and SSIM. Intensities: PSNR, and F1 of what reaches half of the largest value: edges. Depth, which is
    an intensity with a unit or in floats: AbsRel and delta1, after aligning scale and shift to the label, since its
    tokenizers standardise it. normals: the mean angle. classes: mIoU and accuracy, without void: ids from
    `kind.classes` on. Feature maps and vectors: the cosine. Texts: exact match and F1 of words. Records: the share of
    the label's fields that came back as they were, and the relative difference of numbers.

    Instances are paired by their boxes and masks, as many as there are on both sides. Kept is the share of those paired
    in the larger set; the other figures are of those paired, but that a label's mask without a counterpart has the
    IoU 0.

    Raises LabelError for a reconstruction that is no label of the kind, ValueError for one of another size.
    """
    return ErrorSum(kind).add(label, decoded)


class ErrorSum:
    """Errors over many labels of one kind: the mean over labels of each figure, as far as labels have it.

    mIoU and accuracy are of all labels' pixels together, as benchmarks of segmentation have it: a class that is rare in
    each image counts once, not once an image.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.labels = 0
        self._values: dict[str, list[float]] = defaultdict(list)
        self._classes: ClassCounts | None = None

    def add(self, label: Any, decoded: Any) -> dict[str, float]:
        """Counts one label in; its own errors, as `errors` gives them."""
        if isinstance(self.kind, Image) and self.kind.content == "classes":
            counts = _class_counts(self.kind, label, decoded)
            self._classes = counts if self._classes is None else self._classes + counts
            found = _class_errors(counts)
        else:
            found = _errors(self.kind, label, decoded)
            for name, value in found.items():
                self._values[name].append(value)
        self.labels += 1
        return found

    def means(self) -> dict[str, float]:
        """The figures of all labels so far."""
        if self._classes is not None:
            return _class_errors(self._classes)
        return {name: math.fsum(values) / len(values) for name, values in self._values.items()}


def _errors(kind: Kind, label: Any, decoded: Any) -> dict[str, float]:
    if isinstance(kind, Image):
        return _map_errors(kind, *_checked(kind, label, decoded))
    if isinstance(kind, FeatureMap):
        first, second = _checked(kind, label, decoded)
        return {"cosine": mean_cosine(first.reshape(kind.channels, -1).T, second.reshape(kind.channels, -1).T)}
    if isinstance(kind, Vector):
        first, second = _checked(kind, label, decoded)
        return {"cosine": mean_cosine(first[None], second[None])}
    if isinstance(kind, Instances):
        return _instance_errors(kind, label, decoded)
    if isinstance(kind, Text):
        same = words_of(label) == words_of(decoded)
        return {"exact": float(same), "word_f1": word_f1(label, decoded)}
    return _record_errors(label, decoded) if isinstance(kind, Record) else {}


def _checked(kind: Kind, label: Any, decoded: Any) -> tuple[np.ndarray, np.ndarray]:
    first, second = kind.check(label), kind.check(decoded)
    if first.shape != second.shape:
        raise ValueError(f"the reconstruction has the shape {second.shape}, its label {first.shape}")
    return first, second


def _map_errors(kind: Image, label: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
    if kind.content == "normals":
        return _known(angle=mean_angle(_directions(label), _directions(decoded)))
    if kind.content == "intensity" and (kind.unit or kind.dtype == "float32"):
        found = depth_errors(label, decoded)
        return {} if found is None else {"abs_rel": found[0], "delta1": found[1]}
    peak = 1.0 if kind.dtype == "float32" else float(np.iinfo(kind.dtype).max)
    likeness = psnr(label, decoded, peak)
    if kind.content == "intensity":
        return {"psnr": likeness, "edge_f1": edge_f1(label, decoded, peak)}
    return _known(psnr=likeness, ssim=ssim(label, decoded, peak))


def _directions(normals: np.ndarray) -> np.ndarray:
    """Normals as vectors: integers hold (n + 1) / 2."""
    if normals.dtype.kind == "f":
        return normals
    return normals.astype(np.float64) / np.iinfo(normals.dtype).max * 2 - 1


def _class_counts(kind: Image, label: Any, decoded: Any) -> ClassCounts:
    first, second = _checked(kind, label, decoded)
    return ClassCounts.of(first, second, kind.classes or int(np.iinfo(kind.dtype).max) + 1)


def _class_errors(counts: ClassCounts) -> dict[str, float]:
    return _known(miou=counts.mean_iou(), accuracy=counts.accuracy())


def _known(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _instance_errors(kind: Instances, label: InstanceSet, decoded: InstanceSet) -> dict[str, float]:
    from scipy.optimize import linear_sum_assignment

    most = max(len(label), len(decoded))
    if not most:
        return {"kept": 1.0}
    sides = np.abs(label.boxes[:, None].astype(np.float64) - decoded.boxes).mean(axis=2)
    ious = _mask_ious(label, decoded) if kind.masks else np.zeros_like(sides)
    ours, theirs = linear_sum_assignment(sides - 0.01 * ious)  # masks decide between boxes that are nearly the same
    found = {"kept": len(ours) / most}
    if len(label) and kind.masks:
        found["mask_iou"] = float(ious[ours, theirs].sum()) / len(label)
    if len(ours):
        first, second = label.take(ours), decoded.take(theirs)
        found["box_error"] = float(sides[ours, theirs].mean())
        found |= _pose_errors(first.attributes, second.attributes)
        if first.texts and second.texts:
            found["word_f1"] = float(
                np.mean([word_f1(*texts) for texts in zip(first.texts, second.texts, strict=True)])
            )
    return found


def _mask_ious(label: InstanceSet, decoded: InstanceSet) -> np.ndarray:
    """Of every pair, at the size of the label's masks."""
    if not label.masks or not decoded.masks:
        return np.zeros((len(label), len(decoded)))
    size = label.masks[0].height, label.masks[0].width
    ours, theirs = (np.stack([_pixels(mask, size) for mask in one]) for one in (label.masks, decoded.masks))
    return mask_ious(ours, theirs)


def _pixels(mask: Mask, size: tuple[int, int]) -> np.ndarray:
    """bool (height, width) of that size, each pixel the nearest of the mask's."""
    pixels = mask.to_array()
    rows, columns = (((np.arange(to) + 0.5) * of / to).astype(int) for of, to in zip(pixels.shape, size, strict=True))
    return pixels[rows[:, None], columns]


def _pose_errors(label: Mapping[str, np.ndarray], decoded: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Of SMPL's rotations, where both sets of people have them."""
    return {
        figure: float(rotation_angles(label[name], decoded[name]).mean())
        for figure, name in (("joint_angle", "body_pose"), ("orientation", "global_orient"))
        if name in label and name in decoded
    }


def _record_errors(label: Mapping[str, Any], decoded: Mapping[str, Any]) -> dict[str, float]:
    same = [name in decoded and _same(value, decoded[name]) for name, value in label.items()]
    both = [(label[name], decoded[name]) for name in label if name in decoded]
    differences = [relative_difference(*pair) for pair in _numbers(both)]
    found = {"exact": float(all(same) and set(decoded) <= set(label))}
    if same:
        found["fields"] = sum(same) / len(same)
    if differences:
        found["numbers"] = math.fsum(differences) / len(differences)
    return found


def _same(first: Any, second: Any) -> bool:
    """Whether two JSON values are the same, texts less case and accents, and floats to six digits, as records keep
    them."""
    return _plain(first) == _plain(second)


def _plain(value: Any) -> str:
    if isinstance(value, (list, dict)):
        items = enumerate(value) if isinstance(value, list) else sorted(value.items())
        return json.dumps([[name, _plain(item)] for name, item in items])
    if isinstance(value, str):
        return json.dumps(words_of(value))
    return f"{value:.6g}" if _is_number(value) else json.dumps(value)


def _numbers(pairs: Sequence[tuple[Any, Any]]) -> Iterator[tuple[float, float]]:
    """The pairs of numbers among pairs of JSON values, and in the lists among them."""
    for first, second in pairs:
        if isinstance(first, list) and isinstance(second, list):
            yield from _numbers(list(zip(first, second, strict=False)))
        elif _is_number(first) and _is_number(second):
            yield float(first), float(second)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
