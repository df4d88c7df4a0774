"""The corpus of horrors, all at once beside good photographs: each bad sample costs itself, nothing else is lost."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from corpus_files import parquet_bytes, tar_bytes
from PIL import Image
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.storage.store import Store
from weaving import failures_of, labels_of, missing, recipe, weave_here

MODALITIES = ("rgb", "caption", "canny_edge", "color_palette", "metadata")
SECRET = "swordfish-9137"


def saved(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def bomb(side: int = 30_000) -> bytes:
    """A PNG of 30,000 x 30,000 black pixels in a few kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    compressor = zlib.compressobj(9)
    row = bytes(1 + side * 3)
    pixels = b"".join(compressor.compress(row) for _ in range(200)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def odd_images(photos) -> dict[str, bytes]:
    """Pictures that are odd and fine, by key and extension."""
    photo = Image.open(io.BytesIO(photos["coffee"])).convert("RGB").resize((90, 60))
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(np.linspace(0, 65535, 5400).astype(np.uint16).reshape(60, 90))
    return {
        "cmyk.jpg": saved(photo.convert("CMYK"), "JPEG"),
        "deep.png": saved(deep, "PNG"),
        "palette.png": saved(photo.convert("P"), "PNG"),
        "alpha.png": saved(photo.convert("RGBA"), "PNG"),
        "turned.jpg": saved(photo, "JPEG", exif=turned),
        "moving.gif": saved(photo, "GIF", save_all=True, append_images=[photo.rotate(90)]),
        "moving2.webp": saved(photo, "WEBP", save_all=True, append_images=[photo.rotate(90)]),
        "dot.png": saved(photo.resize((1, 1)), "PNG"),
        "thread.png": saved(photo.resize((1, 5000)), "PNG"),
        "thread2.png": saved(photo.resize((5000, 1)), "PNG"),
        "grey.jpg": saved(photo.convert("L"), "JPEG"),
        "sub/földer/ünïcode 图.jpg": saved(photo, "JPEG"),
    }


@pytest.fixture(scope="module")
def bad_images(photos) -> dict[str, tuple[bytes, str]]:
    """What is no usable picture, by key and extension, with words of the reason."""
    return {
        "cut.jpg": (photos["coffee"][:9000], "truncated"),
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"<!DOCTYPE html><html>404</html>", "not"),
        "bomb.png": (bomb(), "pixels"),
    }


HOSTILE_CAPTIONS = {
    "astronaut": "word " * 200_000,
    "chelsea": "tabs\tand \x1b[31mred\x1b[0m and \x00 nothing </script><b>",
    "china": "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd",
    "coffee": "emoji \U0001f469\u200d\U0001f680 and more",
}


def check(output: Path, good: set[str], bad: dict[str, str]) -> None:
    """Every good key has every label; each bad key lacks what needs pixels, with its reason; the dataset verifies."""
    for modality in MODALITIES:
        labels = labels_of(output, modality)
        assert {key for key, _ in labels} == good | set(bad)
        if modality != "caption":
            assert missing(output, modality) == set(bad)
            reasons = {failure.key: failure.reason.lower() for failure in failures_of(output, modality)}
            assert set(reasons) == set(bad)
            for key, words in bad.items():
                assert words in reasons[key], (key, reasons[key])
    assert verify(str(output), deep=True).faults == []


def weave(corpus: Path | str, output: Path, **more):
    modalities = {name: {"keep": "labels"} for name in MODALITIES}
    return weave_here(recipe(corpus, output, modalities, views={"size": 64}, units={"samples": 7}, **more))


def stem(name: str) -> str:
    return name.rsplit(".", 1)[0]


def test_a_folder_of_horrors(photos, odd_images, bad_images, tmp_path):
    folder = tmp_path / "corpus"
    files = {f"{name}.jpg": data for name, data in photos.items()} | odd_images
    files |= {name: data for name, (data, _) in bad_images.items()}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for key, caption in HOSTILE_CAPTIONS.items():
        (folder / f"{key}.txt").write_text(caption)
    (folder / "flower.json").write_text('{"caption": "broken \\ud800 half"}')
    weave(folder, tmp_path / "out")
    good = {*photos, *(stem(name) for name in odd_images)}
    check(tmp_path / "out", good, {stem(name): words for name, (_, words) in bad_images.items()})
    captions = {key: (label or b"").decode() for (key, _), label in labels_of(tmp_path / "out", "caption").items()}
    assert len(captions["astronaut"]) > 900_000
    assert "\x1b" not in captions["chelsea"]
    assert "</script>" in captions["chelsea"]
    assert "\u05e9\u05dc\u05d5\u05dd" in captions["china"]
    assert "\U0001f680" in captions["coffee"]
    assert "\ufffd" in captions["flower"]


def test_tars_of_horrors(photos, odd_images, bad_images, tmp_path):
    """One whole tar with every bad member, one cut off in the middle, one empty, one that is no tar."""
    link = tarfile.TarInfo("link.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members: list = [("coffee.jpg", photos["coffee"])]
    members += [(f"{name}.jpg", data) for name, data in photos.items()]
    members += [*odd_images.items(), *((name, data) for name, (data, _) in bad_images.items())]
    members += [("../up.jpg", photos["coffee"]), ("/absolute.jpg", photos["coffee"]), link]
    whole = tar_bytes(members)
    second = tar_bytes([(f"second/{name}.jpg", data) for name, data in photos.items()])
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.tar").write_bytes(whole)
    (tmp_path / "corpus" / "b.tar").write_bytes(second[: len(second) * 2 // 3])
    (tmp_path / "corpus" / "c.tar").write_bytes(tar_bytes([]))
    (tmp_path / "corpus" / "d.tar").write_bytes(b"no tar at all" * 100)
    payloads = weave(f"{tmp_path}/corpus/*.tar", tmp_path / "out")
    keys = {key for key, _ in labels_of(tmp_path / "out", "rgb")}
    survivors = {key for key in keys if key.startswith("second/")}
    assert 0 < len(survivors) < len(photos)
    good = {*photos, *survivors, *(stem(name) for name in odd_images)}
    check(tmp_path / "out", good, {stem(name): words for name, (_, words) in bad_images.items()})
    reasons = " | ".join(f"{one.key}: {one.reason}" for payload in payloads for one in payload.rejected)
    for words in ("..", "absolute", "link", "same key", "b.tar", "d.tar"):
        assert words in reasons, reasons


def test_parquet_of_horrors(photos, odd_images, bad_images, tmp_path):
    images = {**photos, **odd_images, **{name: data for name, (data, _) in bad_images.items()}}
    keys = ["coffee", *images, "a.b.c/d", "", "../up", "nothing"]
    data = [photos["rocket"], *images.values(), *[photos["rocket"]] * 3, None]
    captions = [HOSTILE_CAPTIONS.get(key, key) for key in keys]
    (tmp_path / "corpus.parquet").write_bytes(parquet_bytes({"key": keys, "jpg": data, "caption": captions}))
    payloads = weave(tmp_path / "corpus.parquet", tmp_path / "out")
    check(tmp_path / "out", {*photos, *odd_images, "a.b.c/d"}, {name: words for name, (_, words) in bad_images.items()})
    rejected = {one.error for payload in payloads for one in payload.rejected}
    assert {"UnsafeKey", "NoImage", "DuplicateKey"} <= rejected


def test_credentials_are_written_nowhere(corpus_folder, tmp_path, monkeypatch):
    """Neither from the environment nor from options; and a recipe that is printed doesn't show them."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    made = recipe(
        corpus_folder,
        tmp_path / "out",
        {"caption": {"keep": "labels"}},
        storage_options={"auto_mkdir": True, "password": SECRET},
    )
    assert SECRET not in repr(made)
    weave_here(made)
    store = Store(str(tmp_path / "out"))
    names = [entry.name for entry in store.list()]
    assert "manifests/00000001.json" in names
    for name in names:
        assert SECRET.encode() not in store.read(name)


@pytest.mark.slow
def test_credentials_are_in_no_message():
    made = recipe(f"s3://user:{SECRET}@nowhere-tokenloom/x.tar", "memory://out", {"caption": {}})
    with pytest.raises((OSError, ValueError)) as error:
        make_plan(made)
    assert SECRET not in str(error.value)
