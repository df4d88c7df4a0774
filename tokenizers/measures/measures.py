"""How far a reconstruction lies from its label, in the units that each field states: pure functions on arrays."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

import numpy as np

from ...labelers.contract.poses import nearest_rotations

HIGHEST_PSNR = 100.0
"""dB, stated where nothing or next to nothing differs: the formula's infinity has no mean over samples."""

SMALLEST_DEPTH = 0.01
"""Share of a map's largest value below which a pixel has no relative error: a share of next to nothing is noise."""

_WINDOW = 11
_SIGMA = 1.5
_WORD = re.compile(r"\w+|[^\w\s]")


def psnr(label: np.ndarray, decoded: np.ndarray, peak: float) -> float:
    """Peak signal-to-noise ratio, 10 log10(peak² / mean squared error), in dB; HIGHEST_PSNR at most.

    label, decoded: numbers of one shape. peak: the largest value that they can have.
    """
    squared = float(np.mean(np.square(label.astype(np.float64) - decoded)))
    return min(HIGHEST_PSNR, 10 * np.log10(peak**2 / squared)) if squared else HIGHEST_PSNR


def ssim(label: np.ndarray, decoded: np.ndarray, peak: float) -> float | None:
    """Structural similarity (Wang et al. 2004), in [-1, 1]; None for images of less than 11 pixels a side.

    As the paper has it: Gaussian windows of 11 x 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03, means over windows that
    lie inside the image, and over channels.

    label, decoded: numbers, (height, width) or (height, width, channels). peak: the largest value they can have.
    """
    from scipy.ndimage import gaussian_filter

    if min(label.shape[:2]) < _WINDOW:
        return None
    first, second = (np.atleast_3d(image).astype(np.float64) for image in (label, decoded))

    def mean(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, (_SIGMA, _SIGMA, 0), radius=(_WINDOW // 2, _WINDOW // 2, 0))

    mean_first, mean_second = mean(first), mean(second)
    covariance = mean(first * second) - mean_first * mean_second
    variances = mean(first**2) - mean_first**2 + mean(second**2) - mean_second**2
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    similarity = (2 * mean_first * mean_second + c1) * (2 * covariance + c2)
    similarity /= (mean_first**2 + mean_second**2 + c1) * (variances + c2)
    inside = slice(_WINDOW // 2, -(_WINDOW // 2))
    return float(similarity[inside, inside].mean())


def aligned(decoded: np.ndarray, label: np.ndarray) -> np.ndarray:
    """`decoded`, scaled and shifted to lie nearest to `label` by least squares (Ranftl et al. 2020); float64."""
    first, second = decoded.astype(np.float64), label.astype(np.float64)
    centred = first - first.mean()
    spread = float(np.square(centred).sum())
    scale = float((centred * second).sum()) / spread if spread else 0.0
    return scale * centred + second.mean()


def depth_errors(label: np.ndarray, decoded: np.ndarray) -> tuple[float, float] | None:
    """AbsRel, the mean of |decoded - label| / label, and delta1, the share of pixels where the larger of the two is
    less than 1.25 times the smaller (Eigen et al. 2014); after `aligned`, since tokenizers of depth standardise it.

    Both are measured in the label's own values: in metres where it is a distance, on inverse depth where it is that.
    Pixels whose label is less than SMALLEST_DEPTH of the map's largest are left out; None where none remains.

    label, decoded: floats (height, width).
    """
    least = SMALLEST_DEPTH * float(label.max())
    seen = label >= least if least > 0 else np.zeros(label.shape, bool)
    if not seen.any():
        return None
    true = label[seen].astype(np.float64)
    found = np.maximum(aligned(decoded[seen], true), least)
    ratio = np.maximum(found / true, true / found)
    return float(np.mean(np.abs(found - true) / true)), float(np.mean(ratio < 1.25))


def edge_f1(label: np.ndarray, decoded: np.ndarray, peak: float) -> float:
    """F1 of the pixels that reach half of `peak`: of edges, pixel by pixel, without tolerance. 1 where neither has any.

    label, decoded: numbers of one shape.
    """
    true, found = label >= peak / 2, decoded >= peak / 2
    total = int(true.sum() + found.sum())
    return 2 * int((true & found).sum()) / total if total else 1.0


def mean_angle(label: np.ndarray, decoded: np.ndarray) -> float | None:
    """Mean angle between two fields of directions, in degrees; None where the label has none.

    Vectors (..., 3) of any length; those of the label shorter than a half are no directions, and left out. A decoded
    vector of no length counts as 90 degrees.
    """
    length = np.linalg.norm(label.astype(np.float64), axis=-1)
    seen = length >= 0.5
    if not seen.any():
        return None
    true = label[seen] / length[seen, None]
    found = decoded[seen].astype(np.float64)
    found_length = np.linalg.norm(found, axis=-1, keepdims=True)
    found = found / np.where(found_length > 0, found_length, 1)
    # exact for small angles, where the arc cosine isn't (Kahan 2006)
    angles = 2 * np.arctan2(np.linalg.norm(true - found, axis=-1), np.linalg.norm(true + found, axis=-1))
    return float(np.degrees(angles).mean())


def rotation_angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The angle between rotations (..., 3, 3), in degrees, (...): that of the turn which takes one to the other.

    Matrices that are not quite rotations stand for the nearest ones.
    """
    one, other = (nearest_rotations(rotations.astype(np.float64)) for rotations in (first, second))
    difference = np.linalg.norm(one - other, axis=(-2, -1))
    return np.degrees(2 * np.arcsin(np.minimum(difference / np.sqrt(8), 1)))


def mean_cosine(label: np.ndarray, decoded: np.ndarray) -> float:
    """Mean cosine of pairs of vectors (n, dim), in [-1, 1]; 0 for a pair of which one is zero, 1 where both are."""
    first, second = label.astype(np.float64), decoded.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = (first * second).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    both_zero = ~first.any(axis=1) & ~second.any(axis=1)
    return float(np.where(both_zero, 1.0, cosines.clip(-1, 1)).mean())


@dataclass(frozen=True)
class ClassCounts:
    """Pixels by class, int64 (classes,): of the label, of the reconstruction where the label isn't void, and of both.

    Counts add up: those of a whole set are the sums of its images'.
    """

    label: np.ndarray
    decoded: np.ndarray
    both: np.ndarray

    @classmethod
    def of(cls, label: np.ndarray, decoded: np.ndarray, classes: int) -> ClassCounts:
        """label, decoded: ids (height, width); those outside of 0..classes - 1 are void."""
        seen = (label >= 0) & (label < classes)
        true, found = label[seen].astype(np.int64), decoded[seen].astype(np.int64)
        ids = (true, found[(found >= 0) & (found < classes)], true[true == found])
        return cls(*(np.bincount(one, minlength=classes) for one in ids))

    def __add__(self, other: ClassCounts) -> ClassCounts:
        return ClassCounts(self.label + other.label, self.decoded + other.decoded, self.both + other.both)

    def mean_iou(self) -> float | None:
        """Mean over the classes that either has of intersection over union; None where the label is all void."""
        union = self.label + self.decoded - self.both
        there = union > 0
        return float((self.both[there] / union[there]).mean()) if there.any() else None

    def accuracy(self) -> float | None:
        """Share of pixels whose class is right; None where the label is all void."""
        pixels = int(self.label.sum())
        return int(self.both.sum()) / pixels if pixels else None


def mask_ious(label: np.ndarray, decoded: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair of masks, float64 (n, m); 1 for two empty ones.

    label: bool (n, height, width). decoded: bool (m, height, width).
    """
    first, second = (masks.reshape(len(masks), -1).astype(np.float32) for masks in (label, decoded))
    both = (first @ second.T).astype(np.float64)  # sums of fewer than 2^24 ones are exact in float32
    union = first.sum(axis=1)[:, None] + second.sum(axis=1) - both
    return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def words_of(text: str) -> list[str]:
    """Words and punctuation marks, without case and accents: what a WordPiece vocabulary keeps of a text."""
    plain = unicodedata.normalize("NFD", text.casefold())
    return _WORD.findall("".join(sign for sign in plain if unicodedata.category(sign) != "Mn"))


def word_f1(label: str, decoded: str) -> float:
    """F1 of the words that two texts share, as often as they share them (as SQuAD has it; Rajpurkar et al. 2016)."""
    first, second = Counter(words_of(label)), Counter(words_of(decoded))
    total = first.total() + second.total()
    return 2 * (first & second).total() / total if total else 1.0


def relative_difference(first: float, second: float) -> float:
    """|first - second| as a share of the larger magnitude, in [0, 2]; 0 where both are 0."""
    largest = max(abs(first), abs(second))
    return abs(first - second) / largest if largest else 0.0
