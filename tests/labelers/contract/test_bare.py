"""Pictures whose pixels are sound, and whose profiles, texts, previews or comments aren't."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tokenloom.labelers.contract.bare import without_metadata
from tokenloom.labelers.contract.images import BadImage, Header, decode_image, decode_view, read_header
from tokenloom.labelers.contract.views import ViewSettings, cut_view

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8).repeat(4, 0).repeat(4, 1)


def saved(form: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, form, **options)
    return file.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def chunk(name: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(name + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


BOMB = zlib.compress(bytes(2**22))
PNG_DEFECTS = {
    "a text that unpacks to megabytes": chunk(b"zTXt", b"Comment\0\0" + BOMB),
    "an international one": chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
    "a profile that does": chunk(b"iCCP", b"icc\0\0" + BOMB),
    "a flipped bit in a text": chunk(b"tEXt", b"Comment\0hello", 12345),
    "a flipped bit in an EXIF": chunk(b"eXIf", b"MM\0*\0\0\0\x08", 12345),
    "a resolution that is cut off": chunk(b"pHYs", b"\0"),
    "an EXIF in a text, of megabytes": chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB),
}
JPEG_DEFECTS = {
    "a profile whose second part is lost": segment(0xE2, b"ICC_PROFILE\0\x01\x02" + bytes(400)),
    "a profile twice": segment(0xE2, b"ICC_PROFILE\0\x01\x01" + bytes(400)) * 2,
    "a profile of no parts": segment(0xE2, b"ICC_PROFILE\0\x01\x00" + bytes(400)),
    "an index of pictures that leads nowhere": segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
    "Photoshop's, cut off": segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0"),
}


def check(data: bytes, sound: bytes) -> None:
    assert read_header(data) == read_header(sound)
    np.testing.assert_array_equal(decode_image(data), decode_image(sound))
    header = read_header(data)
    view = cut_view(1, "key", 1, header.height, header.width, ViewSettings(size=16))
    np.testing.assert_array_equal(decode_view(data, view), decode_view(sound, view))


@pytest.mark.parametrize("exif", [None, turned()], ids=["", "turned"])
@pytest.mark.parametrize("place", ["before the pixels", "behind them"])
@pytest.mark.parametrize("defect", PNG_DEFECTS)
def test_png(defect: str, place: str, exif):
    sound = saved("PNG", **({"exif": exif} if exif else {}))
    at = 33 if place == "before the pixels" else len(sound) - 12
    check(sound[:at] + PNG_DEFECTS[defect] + sound[at:], sound)


@pytest.mark.parametrize("exif", [None, turned()], ids=["", "turned"])
@pytest.mark.parametrize("defect", JPEG_DEFECTS)
def test_jpeg(defect: str, exif):
    sound = saved("JPEG", **({"exif": exif} if exif else {}))
    at = 2 + 2 + int.from_bytes(sound[4:6], "big")
    check(sound[:at] + JPEG_DEFECTS[defect] + sound[at:], sound)


def test_an_exif_kept_as_text_still_turns_the_picture():
    raw = turned().tobytes()
    text = b"\nexif\n%8d\n" % len(raw) + raw.hex().encode() + b"\n"
    exif = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
    sound = saved("PNG")
    with_exif = sound[:33] + exif + sound[33:]
    assert read_header(with_exif) == Header(160, 120)
    for at in (33, len(with_exif) - 12):
        check(with_exif[:at] + PNG_DEFECTS["a text that unpacks to megabytes"] + with_exif[at:], with_exif)


def test_the_cases_that_people_have(shared):
    files = sorted((shared / "cases/jpeg-png-metadata-defects").iterdir())
    assert len(files) == 7
    for file in files:
        header = read_header(file.read_bytes())
        assert decode_image(file.read_bytes()).shape == (header.height, header.width, 3)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_what_spoils_the_pixels_still_does(form: str):
    data = saved(form, **({"icc_profile": bytes(2000)}))
    assert without_metadata(data) is not None
    with pytest.raises(BadImage, match="truncated"):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("orientation", [1, 6])
def test_avif(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved("AVIF", quality=100, subsampling="4:4:4", exif=exif)
    stored = np.asarray(PIXELS if orientation == 1 else np.rot90(PIXELS, -1))
    assert read_header(data) == Header(*stored.shape[:2])
    assert np.abs(decode_image(data).astype(int) - stored).mean() < 4
