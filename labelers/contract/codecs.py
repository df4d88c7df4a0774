"""Codecs: pictures and arrays as the bytes in which labels are stored."""

from __future__ import annotations

import io

import numpy as np


def to_png(array: np.ndarray) -> bytes:
    """uint8 or uint16, (height, width) or (height, width, 3) RGB, as a lossless PNG of the same depth."""
    import cv2

    if array.dtype not in (np.uint8, np.uint16) or not (array.ndim == 2 or array.shape[2:] == (3,)):
        raise ValueError(f"a PNG holds uint8 or uint16 with 1 or 3 channels, not {array.dtype} {array.shape}")
    bgr = array if array.ndim == 2 else array[..., ::-1]
    _, encoded = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 4])
    return encoded.tobytes()


def from_png(data: bytes) -> np.ndarray:
    """The array that `to_png` was given. Raises ValueError for bytes that are no PNG."""
    import cv2

    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if array is None:
        raise ValueError(f"not a PNG: {len(data)} bytes that begin with {data[:8]!r}")
    return array if array.ndim == 2 else np.ascontiguousarray(array[..., ::-1])


def to_npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def from_npy(data: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except SystemError:  # of Python up to 3.11.7 and 3.12.1, where threads parse headers at once (cpython#106905)
        return np.load(io.BytesIO(data), allow_pickle=False)
