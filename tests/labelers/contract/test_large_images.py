"""Large images: the same pixels as of small ones, with less in memory."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tokenloom.labelers.contract import images
from tokenloom.labelers.contract.images import BadImage, decode_image, decode_view
from tokenloom.labelers.contract.views import ViewSettings, cut_view

RANDOM = np.random.default_rng(0)
TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


def saved(mode: str, format: str, size: tuple[int, int] = (301, 523), **options: object) -> bytes:
    width, height = size
    if mode == "I;16":
        picture = Image.fromarray(RANDOM.integers(0, 65536, (height, width), dtype=np.uint16))
    elif mode == "noise":
        picture = Image.fromarray(RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8))
    else:
        coarse = RANDOM.integers(0, 256, (9, 7, 4), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        saved("RGB", "WEBP", quality=40),
        saved("noise", "WEBP", quality=90),
        saved("RGB", "WEBP", lossless=True, exif=TURNED),
        saved("RGBA", "WEBP", quality=60),
        saved("RGBA", "WEBP", lossless=True),
        saved("RGB", "WEBP", save_all=True, append_images=[Image.new("RGB", (301, 523))]),
        *(saved(mode, "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
        saved("P", "GIF", transparency=3),
        saved("CMYK", "JPEG"),
        saved("RGB", "TIFF"),
    ],
)
def test_pixels_are_the_same(data, monkeypatch):
    whole = decode_image(data)
    height, width, _ = whole.shape
    views = [cut_view(0, "key", index, height, width, ViewSettings(size=64)) for index in range(2)]
    small = [decode_view(data, view) for view in views]
    monkeypatch.setattr(images, "_LARGE", 0)
    large = decode_image(data)
    assert (large == whole).all()
    assert large.flags.writeable
    assert all((decode_view(data, view) == one).all() for view, one in zip(views, small, strict=True))
    with pytest.raises(BadImage):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("name", ["WebP", "16 bits", "transparent palette", "turned"])
def test_memory_is_bounded(name):
    side = 4200
    data = {
        "WebP": lambda: flat("RGB", "WEBP", side, lossless=True, method=0),
        "16 bits": lambda: cv2.imencode(".png", np.zeros((side, side, 4), np.uint16))[1].tobytes(),
        "transparent palette": lambda: flat("P", "PNG", side, transparency=bytes(range(256))),
        "turned": lambda: flat("RGBA", "PNG", side, exif=TURNED, compress_level=1),
    }[name]()
    view = cut_view(0, "key", 0, side, side, ViewSettings(size=64))
    for decode in (decode_image, lambda data: decode_view(data, view)):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        before = resident("VmRSS")
        decode(data)
        assert (resident("VmHWM") - before) / side**2 < 13  # it was 21 of a WebP


def flat(mode: str, format: str, side: int, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, format, **options)
    return file.getvalue()


def resident(which: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return 1024 * int(line.split()[1])
