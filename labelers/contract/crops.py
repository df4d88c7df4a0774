"""Crops: what a view sees of a whole image's maps and points."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .views import View


def crop_map(label: np.ndarray, view: View, nearest: bool) -> np.ndarray:
    """What `view` sees of a map: (view.size, view.size) or (view.size, view.size, channels), of the map's dtype.

    label: (height, width) or (height, width, channels) of any resolution, spanning the view's whole image.
    nearest: take the nearest value (classes, masks) rather than Pillow's antialiased bilinear filter.
    """
    scale_y, scale_x = label.shape[0] / view.image_height, label.shape[1] / view.image_width
    top, bottom = view.top * scale_y, (view.top + view.height) * scale_y
    left, right = view.left * scale_x, (view.left + view.width) * scale_x
    if nearest:
        centres = (np.arange(view.size) + 0.5) / view.size
        rows = np.minimum((top + centres * (bottom - top)).astype(np.intp), label.shape[0] - 1)
        columns = np.minimum((left + centres * (right - left)).astype(np.intp), label.shape[1] - 1)
        cut = label[rows[:, None], columns]
    else:
        channels = [label] if label.ndim == 2 else np.moveaxis(label, 2, 0)
        scaled = [_resize(channel, view.size, (left, top, right, bottom)) for channel in channels]
        cut = scaled[0] if label.ndim == 2 else np.stack(scaled, axis=2)
    return np.ascontiguousarray(cut[:, ::-1]) if view.hflip else cut


def crop_points(points: np.ndarray, view: View) -> np.ndarray:
    """Points (..., 2), x and y as shares of the whole image, as shares of the view, float64; some lie outside of it."""
    size, corner = [view.image_width, view.image_height], [view.left, view.top]
    seen = (points.astype(np.float64) * size - corner) / [view.width, view.height]
    return seen * [-1, 1] + [1, 0] if view.hflip else seen


def _resize(channel: np.ndarray, size: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """(height, width) to (size, size) through Pillow: uint8 as it is, other dtypes by way of float32."""
    native = channel if channel.dtype == np.uint8 else channel.astype(np.float32)
    box = (box[0], box[1], min(box[2], channel.shape[1]), min(box[3], channel.shape[0]))
    scaled = Image.fromarray(np.ascontiguousarray(native)).resize((size, size), Image.Resampling.BILINEAR, box=box)
    values = np.asarray(scaled)
    if channel.dtype.kind in "iu" and channel.dtype != np.uint8:
        values = values.round()
    return values.astype(channel.dtype)
