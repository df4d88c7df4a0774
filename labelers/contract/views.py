"""Views: which crop of a sample its spatial labels and tokens are made from.

A view is a pure function of (seed, key, index), so that every process on every machine cuts the same crop.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class ViewSettings:
    """How views are cut.

    size: side of the square view, in pixels. count: views per sample; view 0 is always the centre crop.
    min_scale: smallest share of the image's area that a random view covers.
    """

    size: int = 224
    count: int = 1
    min_scale: float = 0.8


@dataclass(frozen=True)
class View:
    """One crop, in pixels of the whole upright image of `image_height` x `image_width`; scaled to `size` x `size`.

    The crop is mirrored after it is cut when `hflip` is set.
    """

    index: int
    top: int
    left: int
    height: int
    width: int
    hflip: bool
    size: int
    image_height: int
    image_width: int


def cut_view(seed: int, key: str, index: int, height: int, width: int, settings: ViewSettings) -> View:
    """View `index` of the sample `key`, whose upright image is `height` x `width` pixels.

    Index 0 is the largest centred square. The others follow RandomResizedCrop (GoogLeNet's scheme as in torchvision:
    area uniform in [min_scale, 1], aspect ratio log-uniform in [3/4, 4/3], ten tries, then a central crop) and are
    mirrored half of the time.
    """
    top, left, crop_height, crop_width, hflip = (
        _centre(height, width) if index == 0 else _random(seed, key, index, height, width, settings.min_scale)
    )
    return View(index, top, left, crop_height, crop_width, hflip, settings.size, height, width)


def _centre(height: int, width: int) -> tuple[int, int, int, int, bool]:
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side, False


def _random(
    seed: int, key: str, index: int, height: int, width: int, min_scale: float
) -> tuple[int, int, int, int, bool]:
    draws = _uniform_draws(seed, key, index)
    hflip = next(draws) < 0.5
    for _ in range(10):
        area = height * width * (min_scale + (1 - min_scale) * next(draws))
        ratio = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * next(draws))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        place = next(draws), next(draws)
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(place[0] * (height - crop_height + 1))
            left = int(place[1] * (width - crop_width + 1))
            return top, left, crop_height, crop_width, hflip
    crop_height = min(height, max(1, round(width * 4 / 3)))
    crop_width = min(width, max(1, round(height * 4 / 3)))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width, hflip


def _uniform_draws(seed: int, key: str, index: int):
    """Endless floats in [0, 1), from SHA-256 in counter mode: the same on every platform and library version."""
    counter = 0
    while True:
        digest = hashlib.sha256(f"{seed}/{index}/{counter}/{key}".encode("utf-8", "surrogatepass")).digest()
        for start in range(0, 32, 8):
            yield int.from_bytes(digest[start : start + 8], "big") / 2**64
        counter += 1
