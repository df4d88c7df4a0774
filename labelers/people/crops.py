"""People in images: which boxes they are, the crops that pose networks look at, and cameras of crops and of images.

Pixels are counted as cv2 counts them: pixel i of a row is at x = i.
"""

from __future__ import annotations

import math

import numpy as np

from ..contract.instances import InstanceSet
from ..contract.poses import focal_length

CROP = 256
"""Side of HMR2.0's crops in pixels."""

_ASPECT = 256 / 192
"""Height by width of the body's box in a crop."""


def people(things: InstanceSet, min_score: float, limit: int) -> InstanceSet:
    """At most `limit` instances of the class "person" with a score above `min_score`, the likeliest first.

    Boxes without an area are left out: nothing can be seen in them.
    """
    scores = np.ones(len(things), np.float32) if things.scores is None else things.scores
    is_person = np.array([label == "person" for label in things.labels], bool)
    seen = (things.boxes[:, 2:] > things.boxes[:, :2]).all(axis=1)
    order = np.argsort(-scores, kind="stable")
    return things.take(order[(is_person & seen & (scores > min_score))[order]][:limit])


def in_pixels(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes (N, 4) from shares of an image to its pixels, float64."""
    return boxes.astype(np.float64) * [width, height, width, height]


def squares(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (N, 2) and sides (N,) of HMR2.0's crops around boxes (N, 4) in pixels.

    The side is the longer one of the box after it has grown to the aspect ratio 192:256.
    """
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(height, width * _ASPECT)


def crop_square(image: np.ndarray, centre: np.ndarray, side: float) -> np.ndarray:
    """HMR2.0's crop: the square of the image (height, width, 3) at CROP x CROP pixels, float32 in [0, 255].

    4D-Humans' hmr2/datasets: cv2.warpAffine, bilinear, black outside of the image. Where it scales down by more than
    2.2, the image is blurred before (scikit-image's gaussian, sigma = (factor / 2 - 1) / 2).
    """
    step = side / CROP
    sigma = (step / 2 - 1) / 2 if step / 2 > 1.1 else 0.0
    origin = centre - side / 2
    return sample_grid(image, (origin[0], origin[1]), (step, step), (CROP, CROP), sigma).astype(np.float32)


def sample_grid(
    image: np.ndarray,
    origin: tuple[float, float],
    step: tuple[float, float],
    shape: tuple[int, int],
    sigma: float = 0.0,
) -> np.ndarray:
    """The image at origin + i * step (x, y), by OpenCV's bilinear interpolation, black outside.

    image: uint8 (height, width, 3). shape: rows and columns of the result, which is uint8. With a sigma the image is
    blurred before, and the result is float64; pixels outside count as the nearest one inside, and weights end at
    4 sigma, as scikit-image has it.
    """
    import cv2

    radius = int(4 * sigma + 0.5) if sigma else 0
    # only what the grid can see, and what blurring brings into it
    ends = [origin[axis] + (shape[1 - axis] - 1) * step[axis] for axis in (0, 1)]
    left, top = (_clip(math.floor(origin[axis]) - radius - 2, image.shape[1 - axis] - 1) for axis in (0, 1))
    right, bottom = (_clip(math.ceil(ends[axis]) + radius + 2, image.shape[1 - axis] - 1) for axis in (0, 1))
    part = np.ascontiguousarray(image[top : bottom + 1, left : right + 1])
    if sigma:
        weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        weights /= weights.sum()
        part = cv2.sepFilter2D(part.astype(np.float64), -1, weights, weights, borderType=cv2.BORDER_REPLICATE)
    matrix = np.array([[step[0], 0, origin[0] - left], [0, step[1], origin[1] - top]])
    return cv2.warpAffine(part, matrix, (shape[1], shape[0]), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def full_camera(pred_cam: np.ndarray, centres: np.ndarray, sides: np.ndarray, height: int, width: int) -> np.ndarray:
    """Translations (N, 3) before the whole image's camera, from weak-perspective cameras (N, 3) of square crops.

    `cam_crop_to_full` of 4D-Humans, in float64. The focal length is that of this image; the reference takes the largest
    image of the batch, by which z would depend on what else is in it.
    """
    scale, x, y = pred_cam.astype(np.float64).T
    span = sides * scale + 1e-9
    return np.stack(
        [
            x + 2 * (centres[:, 0] - width / 2) / span,
            y + 2 * (centres[:, 1] - height / 2) / span,
            2 * focal_length(height, width) / span,
        ],
        axis=1,
    )


def _clip(place: int, last: int) -> int:
    return min(max(place, 0), last)
