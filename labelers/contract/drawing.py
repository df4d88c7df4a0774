"""Pictures of labels: cropped as a view is, stored as PNG, and drawn for a person to look at.

Everything drawn is uint8 (height, width, 3) RGB and depends on the label alone: no random colours.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from .instances import InstanceSet

SIDE = 224
"""Small maps are enlarged to about this many pixels."""

_GOLDEN = (math.sqrt(5) - 1) / 2
_LIMBS = (
    *((0, 1), (0, 2), (1, 3), (2, 4)),  # nose to eyes to ears
    *((5, 6), (5, 7), (7, 9), (6, 8), (8, 10)),  # shoulders and arms
    *((5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),  # trunk and legs
)
"""Pairs of COCO's 17 keypoints that a line joins."""

_SURE = 0.3
"""Keypoints of a lower score aren't drawn."""

_COLD, _NEUTRAL, _WARM = (33, 92, 168), (245, 244, 240), (192, 54, 44)


def draw_map(label: np.ndarray, content: Literal["colour", "intensity", "normals", "classes"]) -> np.ndarray:
    """A map (height, width) or (height, width, channels), as it is best looked at.

    uint8 intensities stay grey; uint16 and float ones (depth, say) get a perceptual colour map, stretched from the 1st
    to the 99th percentile. Normals become (n + 1) / 2. Classes get colours of their own.
    """
    if content == "classes":
        return class_colours(label)
    if content == "intensity" and label.ndim == 2 and label.dtype != np.uint8:
        return _inferno(_stretch(label.astype(np.float32)))
    if label.ndim == 3 and label.shape[2] != 3:
        return pca_colours(np.moveaxis(label, 2, 0))
    if label.dtype == np.float32:
        label = _to_byte((label + 1) / 2 if content == "normals" else label)
    elif label.dtype == np.uint16:
        label = (label >> 8).astype(np.uint8)
    return np.repeat(label[..., None], 3, axis=2) if label.ndim == 2 else label


def class_colours(ids: np.ndarray) -> np.ndarray:
    """A colour for each id, uint8 (*ids.shape, 3): hues a golden angle apart, so that ids in a row look different."""
    ids = ids.astype(np.int64)
    hue = (ids * _GOLDEN + 0.02) % 1
    saturation = np.choose(ids // 3 % 3, (0.62, 0.80, 0.45))
    value = np.choose(ids // 2 % 3, (0.94, 0.78, 0.86))
    corner = np.abs((hue[..., None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    return _to_byte(value[..., None] * (1 - saturation[..., None] * (1 - corner.clip(0, 1))))


def pca_colours(feature_map: np.ndarray) -> np.ndarray:
    """Features (channels, height, width) with their first three principal components as red, green and blue.

    Each component's largest loading is positive, and its range stretched from the 1st to the 99th percentile.
    """
    channels, height, width = feature_map.shape
    features = feature_map.reshape(channels, -1).T.astype(np.float64)
    features -= features.mean(axis=0)
    left, strength, loadings = np.linalg.svd(features, full_matrices=False)
    components = np.zeros((height * width, 3))
    for index in range(min(3, len(strength))):
        sign = np.sign(loadings[index, np.abs(loadings[index]).argmax()])
        components[:, index] = left[:, index] * strength[index] * sign
    colours = np.stack([_stretch(component) for component in components.T], axis=1)
    return _enlarge(_to_byte(colours.reshape(height, width, 3)))


def draw_bars(vector: np.ndarray) -> np.ndarray:
    """A vector (dim,) as a mosaic, row by row: blue below zero, red above, pale near it."""
    columns = max(1, math.ceil(math.sqrt(2 * len(vector))))
    rows = max(1, math.ceil(len(vector) / columns))
    cell = max(3, SIDE * 2 // columns)
    tiles = np.full((rows * columns, 3), _NEUTRAL, np.uint8)
    tiles[: len(vector)] = _diverging(vector)
    picture = tiles.reshape(rows, columns, 3).repeat(cell, axis=0).repeat(cell, axis=1)
    picture[cell - 1 :: cell] = picture[:, cell - 1 :: cell] = _NEUTRAL
    return picture


def draw_heatmap(array: np.ndarray) -> np.ndarray:
    """Vectors (length, dim), one to a row: blue below zero, red above. Wide rows are averaged to 2 x SIDE columns."""
    if not array.size:
        return np.full((SIDE // 8, SIDE, 3), _NEUTRAL, np.uint8)
    length, dim = array.shape
    columns = min(dim, 2 * SIDE)
    edges = np.arange(columns) * dim // columns
    widths = np.diff(np.append(edges, dim))
    narrow = np.add.reduceat(array.astype(np.float32), edges, axis=1) / widths
    tall, wide = max(1, SIDE // length), max(1, round(2 * SIDE / columns))
    return _diverging(narrow).repeat(tall, axis=0).repeat(wide, axis=1)


def draw_instances(instances: InstanceSet, image: np.ndarray) -> np.ndarray:
    """The image with its instances: masks as tinted areas with an outline, boxes, and what each says or is.

    Small images are enlarged by a whole factor to at least 2 x SIDE, so that the writing can be read.
    """
    factor = max(1, math.ceil(2 * SIDE / max(image.shape[:2])))
    height, width = image.shape[0] * factor, image.shape[1] * factor
    canvas = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    colours = class_colours(np.arange(len(instances)))
    by_area = np.argsort(-_areas(instances.boxes), kind="stable")
    for index in by_area if instances.masks is not None else ():
        mask = np.asarray(Image.fromarray(instances.masks[index].to_array()).resize((width, height)))  # type: ignore[index]
        canvas = _tint(canvas, mask, colours[index])
    picture = Image.fromarray(canvas)
    pen = ImageDraw.Draw(picture)
    corners = instances.boxes * [width - 1, height - 1, width - 1, height - 1]
    line = 1 if instances.masks is not None else 2
    for index in by_area:
        pen.rectangle(tuple(corners[index].round().tolist()), outline=tuple(colours[index].tolist()), width=line)
    for index in by_area if "keypoints" in instances.attributes else ():
        _draw_skeleton(pen, instances.attributes["keypoints"][index], colours[index], (width, height))
    for index in by_area:
        _write_tag(pen, _caption(instances, int(index)), corners[index], colours[index], (width, height))
    return np.asarray(picture)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _tint(canvas: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """The canvas with `colour` laid over the mask at 45 %, and a solid outline two pixels wide inside it."""
    import cv2

    canvas = canvas.copy()
    canvas[mask] = (canvas[mask] * 0.55 + colour * 0.45).round().astype(np.uint8)
    inside = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=0).astype(bool)
    canvas[mask & ~inside] = colour
    return canvas


def _draw_skeleton(pen: ImageDraw.ImageDraw, keypoints: np.ndarray, colour: np.ndarray, size: tuple[int, int]) -> None:
    """COCO's keypoints (17, 3), x and y as shares of `size` and the score, with the limbs between them."""
    red, green, blue = colour.tolist()
    places = [(float(x) * size[0] - 0.5, float(y) * size[1] - 0.5) for x, y, _ in keypoints]
    # those far outside would make lines of which nothing is seen but the slowness
    sure = [bool(score >= _SURE and max(abs(x), abs(y)) < 10) for x, y, score in keypoints]
    for start, end in _LIMBS:
        if sure[start] and sure[end]:
            pen.line((*places[start], *places[end]), fill=(red, green, blue), width=3)
    for x, y in (place for place, is_sure in zip(places, sure, strict=True) if is_sure):
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(red, green, blue), outline=(255, 255, 255))


def _caption(instances: InstanceSet, index: int) -> str:
    """What an instance says, else its class and score; on one line, of at most 40 characters."""
    if instances.texts is not None:
        caption = instances.texts[index]
    else:
        caption = instances.labels[index]
        if instances.scores is not None:
            caption += f" {instances.scores[index]:.2f}"
    caption = " ".join("".join(sign if sign.isprintable() else " " for sign in caption).split())
    return caption if len(caption) <= 40 else caption[:39] + "…"


def _write_tag(
    pen: ImageDraw.ImageDraw, caption: str, box: np.ndarray, colour: np.ndarray, size: tuple[int, int]
) -> None:
    """The caption on its instance's colour, above the box where there is room, else inside it."""
    if not caption:
        return
    font = _font(13)
    _, _, text_width, _ = pen.textbbox((0, 0), caption, font=font)
    tag_width, tag_height = math.ceil(text_width) + 6, 17
    left = int(min(max(0, round(float(box[0]))), max(0, size[0] - tag_width)))
    top = round(float(box[1])) - tag_height
    top = top if top >= 0 else min(max(0, top + tag_height), size[1] - tag_height)
    red, green, blue = colour.tolist()
    pen.rectangle((left, top, left + tag_width - 1, top + tag_height - 1), fill=(red, green, blue))
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 140
    pen.text((left + 3, top + 1), caption, fill=(255, 255, 255) if dark else (20, 20, 20), font=font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans where the system has it, for its many scripts; else Pillow's own, which knows ASCII alone."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size - 1)
    except OSError:
        return ImageFont.load_default(size)


def _stretch(values: np.ndarray) -> np.ndarray:
    """Values scaled so that their 1st percentile is 0 and their 99th is 1, clipped; 0.5 where all are equal."""
    low, high = np.percentile(values, (1, 99))
    if not high > low:
        low, high = values.min(), values.max()
    return ((values - low) / (high - low)).clip(0, 1) if high > low else np.full_like(values, 0.5)


def _inferno(shares: np.ndarray) -> np.ndarray:
    import cv2

    return np.ascontiguousarray(cv2.applyColorMap(_to_byte(shares), cv2.COLORMAP_INFERNO)[..., ::-1])


def _diverging(values: np.ndarray) -> np.ndarray:
    """Colours (*values.shape, 3) from cold over neutral to warm; zero is neutral, the 99th percentile of |v| full."""
    values = values.astype(np.float32)
    reach = float(np.percentile(np.abs(values), 99)) or float(np.abs(values).max()) or 1.0
    shares = (values / reach).clip(-1, 1)[..., None]
    end = np.where(shares < 0, np.array(_COLD), np.array(_WARM))
    return (np.array(_NEUTRAL) * (1 - np.abs(shares)) + end * np.abs(shares)).round().astype(np.uint8)


def _to_byte(shares: np.ndarray) -> np.ndarray:
    """[0, 1] to uint8, clipped."""
    return (shares * 255).round().clip(0, 255).astype(np.uint8)


def _enlarge(picture: np.ndarray) -> np.ndarray:
    """By a whole factor, in square pixels, to about SIDE."""
    factor = max(1, round(SIDE / max(picture.shape[:2])))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)
