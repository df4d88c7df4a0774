"""Image files of every sort, good and horrible, against labelers/images.py."""

from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from PIL import Image
from tokenloom.labelers.contract.images import MAX_PIXELS, BadImage, Header, decode_image, decode_view, read_header
from tokenloom.labelers.contract.views import View, ViewSettings, cut_view

PHOTO = np.asarray(Image.open(Path(skimage.data.__file__).parent / "coffee.png").convert("RGB").resize((500, 375)))
SMALL = np.ascontiguousarray(PHOTO[100:130, 200:240])


def saved(array: np.ndarray, form: str, mode: str | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).convert(mode or "RGB").save(buffer, form, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour_type: int, scanlines: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand, for what Pillow doesn't write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return png_of_chunks((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(scanlines, 9)))


def png_of_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in (*chunks, (b"IEND", b""))
    )


def view_of(data: bytes, size: int = 16, index: int = 0) -> View:
    header = read_header(data)
    return cut_view(1, "key", index, header.height, header.width, ViewSettings(size=size))


def mean_error(one: np.ndarray, other: ArrayLike) -> float:
    return float(np.abs(one.astype(float) - np.asarray(other)).mean())


JPEG = saved(PHOTO, "JPEG", quality=95)
SMALL_JPEG = saved(SMALL, "JPEG")
SMALL_PNG = saved(SMALL, "PNG")
view_of_png = cache(lambda view: decode_view(saved(PHOTO, "PNG"), view))


# --- the definition of a view's pixels ---


@pytest.mark.parametrize("size", [32, 64, 100, 150, 187, 224, 300, 375, 500])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_view_shows_the_crop_at_every_jpeg_scale(size: int, index: int):
    view = view_of(JPEG, size, index)
    box = (view.left, view.top, view.left + view.width, view.top + view.height)
    expected = np.asarray(Image.fromarray(decode_image(JPEG)).resize((size, size), Image.Resampling.BICUBIC, box=box))
    got = decode_view(JPEG, view)
    assert got.shape == (size, size, 3)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    assert mean_error(got, expected[:, ::-1] if view.hflip else expected) < 2.5


def test_view_at_full_scale_is_exactly_the_full_decode_resized():
    view = view_of(JPEG, 300)
    expected = Image.fromarray(decode_image(JPEG)).resize((300, 300), Image.Resampling.BICUBIC, box=(62, 0, 437, 375))
    np.testing.assert_array_equal(decode_view(JPEG, view), np.asarray(expected))


def test_view_of_png_is_exactly_the_crop_when_nothing_is_scaled():
    view = View(1, 3, 5, 20, 20, True, 20, *SMALL.shape[:2])
    np.testing.assert_array_equal(decode_view(SMALL_PNG, view), SMALL[3:23, 5:25][:, ::-1])


def test_scaled_decoding_keeps_subpixel_geometry():
    """A bright square's centre of mass stays where it was, whatever scale the JPEG was decoded at."""
    scene = np.zeros((803, 805, 3), np.uint8)
    scene[500:560, 300:380] = 255
    data = saved(scene, "JPEG", quality=98)
    for size in (90, 200, 290, 390, 480, 800):
        view = View(1, 101, 3, 701, 799, False, size, 803, 805)
        bright = decode_view(data, view)[..., 0].astype(float)
        rows, columns = np.indices(bright.shape) + 0.5
        row, column = (bright * rows).sum() / bright.sum(), (bright * columns).sum() / bright.sum()
        assert row / size * 701 + 101 == pytest.approx(530, abs=0.5), size
        assert column / size * 799 + 3 == pytest.approx(340, abs=0.5), size


# --- EXIF orientation ---

INVERSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(form: str, orientation: int):
    upright = Image.fromarray(PHOTO)
    stored = upright.transpose(INVERSE[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    options = {"lossless": True} if form == "WEBP" else {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
    stored.save(buffer, form, exif=exif, **options)
    data = buffer.getvalue()

    assert read_header(data) == Header(375, 500)
    assert mean_error(decode_image(data), PHOTO) < 3
    for size, index in ((64, 1), (224, 2), (400, 3)):
        view = view_of(data, size, index)
        assert mean_error(decode_view(data, view), view_of_png(view)) < 3


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_broken_exif_does_not_spoil_the_picture(exif: bytes):
    assert read_header(saved(SMALL, "JPEG", exif=exif)) == Header(30, 40)


def test_senseless_orientation_is_none():
    exif = Image.Exif()
    exif[0x0112] = 99
    assert decode_image(saved(SMALL, "PNG", exif=exif)).shape == (30, 40, 3)


# --- colours ---


def test_grey_becomes_rgb():
    for data in (saved(SMALL, "JPEG", "L"), saved(SMALL, "PNG", "L")):
        picture = decode_image(data)
        assert picture.shape == (30, 40, 3)
        assert (picture == picture[..., :1]).all()


def test_bilevel():
    picture = decode_image(saved(SMALL, "PNG", "1"))
    assert set(np.unique(picture)) == {0, 255}


@pytest.mark.parametrize("size", [16, 30])
def test_cmyk_jpeg(size: int):
    colours = np.zeros((32, 32, 3), np.uint8)
    colours[:, :16], colours[:, 16:] = (200, 40, 40), (30, 60, 220)
    data = saved(colours, "JPEG", "CMYK", quality=95)
    assert mean_error(decode_image(data), colours) < 4
    assert mean_error(decode_view(data, view_of(data, size))[:, : size // 2 - 2], (200, 40, 40)) < 6


def test_16_bit_grey_keeps_the_high_byte():
    grey = np.linspace(0, 65535, 40 * 30).astype(np.uint16).reshape(30, 40)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    np.testing.assert_array_equal(decode_image(buffer.getvalue()), np.repeat((grey >> 8)[..., None], 3, axis=2))


def test_16_bit_rgb_keeps_the_high_byte():
    colours = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    np.testing.assert_array_equal(decode_image(png(7, 5, 16, 2, lines)), colours >> 8)


def test_16_bit_rgb_with_a_transparent_colour_is_a_picture():
    colours = np.full((2, 2, 3), 65535, np.uint16)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    data = png(2, 2, 16, 2, lines, (b"tRNS", struct.pack(">HHH", 1, 2, 3)))
    assert (decode_image(data) == 255).all()


@pytest.mark.parametrize("maximum", [255, 65535])
def test_pgm(maximum: int):
    size = 1 if maximum == 255 else 2
    data = f"P5 2 1 {maximum}\n".encode() + (0).to_bytes(size, "big") + maximum.to_bytes(size, "big")
    np.testing.assert_array_equal(decode_image(data), [[[0] * 3, [255] * 3]])


def test_palette_png():
    data = saved(SMALL, "PNG", "P")
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data), expected)


def test_palette_png_with_transparency_lies_over_white():
    pixels = b"\0\x00\x01\x02"
    palette = (b"PLTE", bytes([200, 0, 0, 0, 200, 0, 0, 0, 200]))
    data = png(3, 1, 8, 3, pixels, palette, (b"tRNS", bytes([0, 255, 255])))
    np.testing.assert_array_equal(decode_image(data), [[[255, 255, 255], [0, 200, 0], [0, 0, 200]]])


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_alpha_lies_over_white(form: str):
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:4, :, 3], rgba[4:, :, 3] = 255, 0
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, form, lossless=True)
    data = buffer.getvalue()
    picture = decode_image(data)
    assert (picture[:4] == (200, 0, 0)).all()
    assert (picture[4:] == 255).all()
    np.testing.assert_array_equal(decode_view(data, view_of(data, 8)), picture)


def test_grey_alpha_lies_over_white():
    buffer = io.BytesIO()
    Image.merge("LA", (Image.new("L", (2, 2), 100), Image.new("L", (2, 2), 0))).save(buffer, "PNG")
    assert (decode_image(buffer.getvalue()) == 255).all()


def test_float_tiff_is_refused():
    buffer = io.BytesIO()
    Image.fromarray(np.ones((3, 3), np.float32)).save(buffer, "TIFF")
    with pytest.raises(BadImage, match="32-bit numbers"):
        decode_image(buffer.getvalue())


# --- odd shapes and animations ---


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(form: str):
    frames = [Image.new("RGB", (12, 8), colour) for colour in ("red", "lime", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:], duration=50, lossless=True)
    data = buffer.getvalue()
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    assert (decode_image(data) == (255, 0, 0)).all()
    assert (decode_view(data, view_of(data)) == (255, 0, 0)).all()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (2, 3)])
def test_tiny_and_thin(form: str, height: int, width: int):
    data = saved(np.full((height, width, 3), 90, np.uint8), form)
    assert read_header(data) == Header(height, width)
    assert decode_image(data).shape == (height, width, 3)
    for index in range(4):
        assert mean_error(decode_view(data, view_of(data, 224, index)), 90) < 2


def test_jpeg_with_garbage_behind_its_end():
    np.testing.assert_array_equal(decode_image(JPEG + b"<html>" * 1000), decode_image(JPEG))


def test_jpeg_with_harmless_extra_bytes_is_decoded():
    data = JPEG[:-2] + b"\x12\x34\x56" * 20 + JPEG[-2:]
    assert mean_error(decode_image(data), PHOTO) < 4
    assert mean_error(decode_view(data, view_of(data, 64)), decode_view(JPEG, view_of(JPEG, 64))) < 4


# --- refusals ---


def refused(data: bytes) -> str:
    """The reason, after every function has been seen to refuse."""
    with pytest.raises(BadImage) as raised:
        decode_image(data)
    with pytest.raises(BadImage):
        decode_view(data, View(0, 0, 0, 30, 30, False, 16, 30, 40))
    return str(raised.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("tail", [b"", b"\xff\xd9"])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_is_never_half_grey(share: float, tail: bytes, progressive: bool):
    data = saved(PHOTO, "JPEG", quality=95, progressive=progressive)
    assert "truncated" in refused(data[: int(len(data) * share)] + tail)


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "TIFF", "BMP"])
def test_other_truncated_files(form: str):
    data = saved(PHOTO, form)
    assert refused(data[: len(data) // 2])


def test_truncated_png_says_so():
    assert "truncated" in refused(saved(PHOTO, "PNG")[:20000])


def test_empty_file():
    assert refused(b"") == "the image file is empty"
    with pytest.raises(BadImage, match="empty"):
        read_header(b"")


@pytest.mark.parametrize(
    "data", [b"just a text, named .jpg", b"<!DOCTYPE html><html></html>", b"\0" * 1000, b"\xff\xd8"]
)
def test_not_an_image_shows_how_it_begins(data: bytes):
    assert repr(data[:24]) in refused(data)


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (10_000, 9_000), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused(width: int, height: int):
    data = png(width, height, 8, 2, b"\0" * 1000)
    assert width * height > MAX_PIXELS
    assert "more than 89,478,485 pixels" in refused(data)
    with pytest.raises(BadImage, match="pixels"):
        read_header(data)


def test_decompression_bomb_takes_no_memory():
    """The process's peak of resident memory, in KiB, while a whole 30,000 x 30,000 PNG of 3 MB is refused."""
    program = """
import resource, sys
from tokenloom.labelers.contract.images import BadImage, decode_image
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_image(data)
except BadImage as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    compress = zlib.compressobj(9, wbits=-15)
    row = compress.compress(b"\0" * 90_001) + compress.flush(zlib.Z_FULL_FLUSH)  # what follows doesn't look back
    checksum = struct.pack(">HH", 30_000 * 90_001 % 65_521, 1)  # Adler-32 of zeros
    pixels = b"\x78\xda" + row * 30_000 + compress.flush() + checksum
    data = png_of_chunks((b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)), (b"IDAT", pixels))
    assert len(data) < 4 * 2**20
    result = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    assert int(result.stdout) < 50 * 1024


FILES = [
    SMALL_JPEG,
    SMALL_PNG,
    saved(SMALL, "PNG", "P"),
    saved(SMALL, "GIF"),
    saved(SMALL, "WEBP"),
    saved(SMALL, "TIFF"),
    saved(SMALL, "BMP"),
    saved(SMALL, "JPEG", "CMYK"),
    saved(SMALL, "JPEG", progressive=True),
    saved(SMALL, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
]


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(
    file=st.sampled_from(FILES),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.binary(max_size=4)), min_size=1, max_size=6),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
def test_mutated_files_give_a_picture_or_bad_image(file: bytes, edits: list[tuple[float, bytes]], cut: float | None):
    data = bytearray(file)
    for place, new in edits:
        start = int(place * len(data))
        data[start : start + len(new)] = new
    check_any(bytes(data[: int(cut * len(data))] if cut is not None else data))


@settings(max_examples=200, deadline=None)
@given(
    prefix=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"BM", b"P6 "]),
    rest=st.binary(),
)
def test_random_bytes_give_a_picture_or_bad_image(prefix: bytes, rest: bytes):
    check_any(prefix + rest)


def check_any(data: bytes) -> None:
    """Every function gives what it promises, or raises BadImage; the header's size is the picture's."""
    try:
        header = read_header(data)
    except BadImage:
        with pytest.raises(BadImage):
            decode_image(data)
        return
    if header.height * header.width > 2**22:
        return  # large sizes that a mutation makes up only cost time
    with contextlib.suppress(BadImage):
        picture = decode_image(data)
        assert picture.shape == (header.height, header.width, 3)
        assert picture.dtype == np.uint8
    for index in (0, 1):
        with contextlib.suppress(BadImage):
            assert decode_view(data, view_of(data, 8, index)).shape == (8, 8, 3)
