"""Image files: bytes of any origin to upright RGB pixels, or BadImage with the reason.

The pixels define a dataset's bytes, so they are the same on every machine: libjpeg-turbo's accurate DCT and Pillow's
resize both work in fixed point. Colour profiles are not applied.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from .bare import without_metadata
from .scans import MAX_SCANS, has_too_many_scans
from .views import View

P = ParamSpec("P")
T = TypeVar("T")

MAX_PIXELS = 89_478_485
"""Larger images are refused before memory is used: a quarter of a gigabyte of RGB, where Pillow starts to warn too."""

_LARGE = 2**24
"""Pixels above which an image is decoded with little beside it in memory, which takes longer."""
_STRIP = 256
"""Rows of one that are converted at once."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")

_JPEG_EIGHTHS = (1, 2, 3, 4, 5)
"""Scales in eighths worth decoding at: without SIMD in libjpeg-turbo, 6/8 and 7/8 cost more than they save."""

_ORIENTATION = 0x0112
_FLIPPED_X, _FLIPPED_Y, _SWAPPED = (2, 3, 7, 8), (3, 4, 6, 7), (5, 6, 7, 8)
"""EXIF orientations by how a stored picture is made upright: flip x, flip y, then swap the axes."""


class BadImage(ValueError):  # noqa: N818 - a finding about the bytes, as quarantine shows it
    """Bytes that don't give a picture; the message says why, in plain words."""


@dataclass(frozen=True)
class Header:
    """Size of the upright image, in pixels."""

    height: int
    width: int


def _also_bare(decode: Callable[Concatenate[bytes, P], T]) -> Callable[Concatenate[bytes, P], T]:
    """`decode`, tried again without the file's metadata where it refuses the file: they don't spoil the picture."""

    @wraps(decode)
    def decoded(data: bytes, *args: P.args, **more: P.kwargs) -> T:
        try:
            return decode(data, *args, **more)
        except BadImage as error:
            bare = without_metadata(data)
            if bare is None:
                raise
            try:
                return decode(bare, *args, **more)
            except BadImage:
                raise error from None

    return decoded


@_also_bare
def read_header(data: bytes) -> Header:
    """The size after EXIF orientation, without decoding any pixel. Raises BadImage."""
    with _refusals(data):
        image = _open(data)
        width, height = image.size[::-1] if _orientation(image) in _SWAPPED else image.size
        return Header(height, width)


@_also_bare
def read_format(data: bytes) -> tuple[str, bool]:
    """Its format, as Pillow names it, and whether the picture is stored upright. Raises BadImage."""
    with _refusals(data):
        image = _open(data)
        return image.format or "", _orientation(image) == 1


@_also_bare
def decode_image(data: bytes) -> np.ndarray:
    """The whole image, upright: uint8 (height, width, 3) RGB. Of an animation the first frame; alpha lies over white.

    Raises BadImage.
    """
    with _refusals(data):
        image = _open(data)
        orientation = _orientation(image)
        jpeg = _decode_jpeg(data, image, eighths=8)
        pixels = _pixels(data, image) if jpeg is None else jpeg
        del image  # else its pixels lie in memory beside those and the upright ones
        return _upright(pixels, orientation)


@_also_bare
def decode_view(data: bytes, view: View) -> np.ndarray:
    """The view's pixels: uint8 (view.size, view.size, 3) RGB. Raises BadImage.

    A JPEG is decoded at the smallest scale of libjpeg-turbo's (1/8 to 5/8, else 1) at which the crop still has
    view.size pixels on both sides. The crop, at fractions of a pixel of that, is scaled with Pillow's antialiased
    bicubic filter, then made upright and mirrored.
    """
    with _refusals(data):
        image = _open(data)
        orientation = _orientation(image)
        eighths = _eighths(min(view.height, view.width), view.size)
        jpeg = _decode_jpeg(data, image, eighths)
        scale = 1.0 if jpeg is None else eighths / 8
        left, top, right, bottom = (side * scale for side in _stored_box(view, orientation))
        stored = _picture(data, image) if jpeg is None else Image.fromarray(jpeg)
        scaled = stored.resize((view.size, view.size), Image.Resampling.BICUBIC, box=(left, top, right, bottom))
        upright = _upright(np.asarray(scaled), orientation)
        return np.ascontiguousarray(upright[:, ::-1]) if view.hflip else upright


@contextmanager
def _refusals(data: bytes) -> Iterator[None]:
    """Turns whatever a decoder raises into BadImage: hostile bytes bring out nearly every exception there is."""
    try:
        yield
    except (BadImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(f"the image has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise BadImage(f"not an image in a known format ({', '.join(FORMATS)}): it begins with {data[:24]!r}") from None
    except Exception as error:
        if "truncated" in str(error).lower():
            raise BadImage(f"the image file is truncated: {error}") from error
        raise BadImage(f"the image file is broken: {error or type(error).__name__}") from error


def _open(data: bytes) -> Image.Image:
    """The image, its size checked, its pixels still undecoded."""
    if not data:
        raise BadImage("the image file is empty")
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImage(f"the image is {width} x {height}: more than {MAX_PIXELS:,} pixels")
    if image.format == "WEBP" and getattr(image, "n_frames", 1) > 1 and width * height > MAX_PIXELS // 2:
        raise BadImage(f"the animation is {width} x {height}: more than {MAX_PIXELS // 2:,} pixels")
    if width * height == 0:
        raise BadImage(f"the image is {width} x {height}: it has no pixels")
    if image.format in ("JPEG", "MPO") and has_too_many_scans(data):
        raise BadImage(f"the JPEG has more than {MAX_SCANS} scans")
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8, as far as it stands before the pixels; 1 where there is none or it makes no sense."""
    if image.format == "TIFF":
        return 1  # Pillow turns TIFF by itself, size and pixels
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1  # getexif would decode the pixels to look behind them
    if image.format == "PNG" and "exif" not in image.info:
        image.load()  # as getexif does; what fails then isn't the EXIF
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1  # a broken EXIF block doesn't spoil the picture
    return orientation if orientation in range(1, 9) else 1


def _upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """A stored picture (height, width, 3) turned upright, C-contiguous."""
    flipped = stored[:: -1 if orientation in _FLIPPED_Y else 1, :: -1 if orientation in _FLIPPED_X else 1]
    return np.ascontiguousarray(flipped.swapaxes(0, 1) if orientation in _SWAPPED else flipped)


def _stored_box(view: View, orientation: int) -> tuple[int, int, int, int]:
    """The view's crop (left, top, right, bottom) in pixels of the stored picture."""
    left, top, right, bottom = view.left, view.top, view.left + view.width, view.top + view.height
    width, height = view.image_width, view.image_height
    if orientation in _SWAPPED:
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if orientation in _FLIPPED_X:
        left, right = width - right, width - left
    if orientation in _FLIPPED_Y:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


def _eighths(crop_side: int, size: int) -> int:
    """The JPEG scale, in eighths, for a crop of `crop_side` full pixels that must keep `size` of them."""
    return next((eighths for eighths in _JPEG_EIGHTHS if crop_side * eighths >= size * 8), 8)


def _decode_jpeg(data: bytes, image: Image.Image, eighths: int) -> np.ndarray | None:
    """Stored pixels, uint8 RGB, at eighths/8 of the size (rounded up); None where Pillow must decode it in full.

    That is for other formats, CMYK, and JPEGs that libjpeg complains about without having lost any data.
    """
    if image.format not in ("JPEG", "MPO"):
        return None
    width, height = image.size
    min_height, min_width = (-(-side * eighths // 8) if eighths < 8 else 0 for side in (height, width))
    try:
        coded_height, coded_width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (coded_height, coded_width) != (height, width) or colours in ("CMYK", "YCCK"):
            return None
        return simplejpeg.decode_jpeg(data, min_height=min_height, min_width=min_width)
    except ValueError as error:
        complaint = str(error)
    if "premature end" in complaint.lower():
        raise BadImage(f"the image file is truncated: {complaint}")
    if "Corrupt JPEG data" in complaint and "extraneous bytes" not in complaint:
        raise BadImage(f"the image file is broken: {complaint}")
    return None


def _pixels(data: bytes, image: Image.Image) -> np.ndarray:
    """Stored pixels as Pillow decodes them: uint8 RGB, for whoever asks to write to.

    Of a large image at most 9 bytes a pixel are in memory at any time, and of an animated WebP 16. Pillow by itself
    would come to 14 of a PNG, and to 22 of a WebP.
    """
    if image.width * image.height <= _LARGE:
        return np.array(_to_rgb(image, image.format))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top, strip in _strips(data, image):
        pixels[top : top + strip.height] = np.asarray(strip)
    return pixels


def _picture(data: bytes, image: Image.Image) -> Image.Image:
    """The same for Pillow."""
    if image.width * image.height <= _LARGE:
        return _to_rgb(image, image.format)
    picture = Image.new("RGB", image.size)
    for top, strip in _strips(data, image):
        picture.paste(strip, (0, top))
    return picture


def _strips(data: bytes, image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The stored pixels as strips of mode RGB, each with its first row."""
    whole = _still_webp(data, image)
    if isinstance(whole, Image.Image):
        whole.load()
    for top in range(0, image.height, _STRIP):
        bottom = min(top + _STRIP, image.height)
        strip = whole.crop((0, top, image.width, bottom)) if isinstance(whole, Image.Image) else _of(whole[top:bottom])
        yield top, _to_rgb(strip, image.format)


def _still_webp(data: bytes, image: Image.Image) -> Image.Image | np.ndarray:
    """A WebP without animation as OpenCV decodes it, by the same library and without the canvases of animations: uint8
    BGR or BGRA. The image itself where it is no such, or is broken, which Pillow tells."""
    if image.format != "WEBP" or getattr(image, "n_frames", 1) > 1:
        return image
    import cv2

    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.shape != (image.height, image.width, len(image.getbands())):
        return image
    return found


def _of(strip: np.ndarray) -> Image.Image:
    """BGR or BGRA for Pillow."""
    return Image.fromarray(np.ascontiguousarray(strip[..., [2, 1, 0, 3][: strip.shape[2]]]))


def _to_rgb(image: Image.Image, format: str | None) -> Image.Image:
    """Mode RGB, not yet upright. Of 16-bit values the high byte is kept; alpha is laid over white. format: that of the
    file."""
    if image.mode.startswith("I;16") or (image.mode == "I" and format in ("PNG", "PPM")):
        high_byte = np.asarray(image) >> 8
        return Image.fromarray(high_byte.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadImage("the image's pixels are 32-bit numbers, not colours")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")
