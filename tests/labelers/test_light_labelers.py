"""The labelers that need no model: rgb, caption, canny_edge, color_palette, metadata."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pydantic import ValidationError
from tokenloom.labelers.canny_edge import CannyEdge, CannyEdgeParams
from tokenloom.labelers.caption import Caption, CaptionParams, clean
from tokenloom.labelers.color_palette import ColorPalette, palettes
from tokenloom.labelers.contract.instances import InstanceSet
from tokenloom.labelers.contract.labeler import Batch, Labeler
from tokenloom.labelers.contract.views import ViewSettings, cut_view
from tokenloom.labelers.metadata import (
    FIELDS,
    Metadata,
    colorfulness,
    count_sentences,
    geometric_complexity,
    occlusion_score,
    pixel_fields,
    segmentation_fields,
)
from tokenloom.labelers.rgb import Rgb
from tokenloom.tokenizers.text.records import METADATA


def square(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).convert("RGB").resize((224, 224)))


PHOTOS = np.stack(
    [square(getattr(skimage.data, name)()) for name in ("astronaut", "coffee", "chelsea", "rocket", "camera")]
)
_RAMP = np.arange(256, dtype=np.uint8)[:224, None].repeat(224, axis=1)
ODD = np.stack(
    [
        np.zeros((224, 224, 3), np.uint8),
        np.full((224, 224, 3), 255, np.uint8),
        np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8),
        np.repeat(_RAMP[..., None], 3, axis=2),
    ]
)
LABELERS = [Rgb, CannyEdge, ColorPalette, Metadata]


def batch_of(images: np.ndarray, fields: dict[str, Any] | None = None, **labels: Any) -> Batch:
    """A batch of one label for all samples in each modality of `labels`."""
    count = len(images)
    views = [cut_view(0, str(index), 0, 480, 640, ViewSettings()) for index in range(count)]
    given_labels = {name: [label] * count for name, label in labels.items()}
    return Batch([str(index) for index in range(count)], images, views, [fields or {}] * count, given_labels)


def captions(*values: Any) -> list[str | None]:
    fields = [{} if value is ... else {"caption": value} for value in values]
    keys = [str(index) for index in range(len(values))]
    return list(Caption().label(Batch(keys, None, [], fields))["caption"])


# --- the contract, for all that look at pixels ---


@pytest.mark.parametrize("labeler", LABELERS)
@pytest.mark.parametrize("images", [PHOTOS, ODD])
def test_labels_are_what_their_kind_promises(labeler: type[Labeler], images: np.ndarray):
    before = images.copy()
    labels = labeler().label(batch_of(images))
    for modality in labeler.makes:
        assert len(labels[modality.name]) == len(images)
        for label, image in zip(labels[modality.name], images, strict=True):
            checked = modality.kind.check(label)
            np.testing.assert_equal(modality.kind.decode(modality.kind.encode(checked)), checked)
            modality.kind.show(checked, image)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("labeler", LABELERS)
def test_labels_do_not_depend_on_batch_thread_or_run(labeler: type[Labeler]):
    images = np.concatenate([PHOTOS, ODD])
    together = labeler().label(batch_of(images))
    with ThreadPoolExecutor(4) as threads:
        alone = list(threads.map(lambda image: labeler().label(batch_of(image[None])), images))
    for modality in labeler.makes:
        encode = modality.kind.encode
        assert [encode(one) for one in together[modality.name]] == [encode(one[modality.name][0]) for one in alone]


# --- rgb ---


def test_rgb_is_the_view():
    np.testing.assert_array_equal(np.stack(Rgb().label(batch_of(PHOTOS))["rgb"]), PHOTOS)


# --- caption ---


def test_captions_as_they_come():
    assert captions("A cat.", ..., None, "", "  \n\t ", [], ["first", "second"], [None]) == [
        "A cat.",
        *[None] * 5,
        "first",
        None,
    ]


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("line\none\ttab\r\n", "line one tab"),
        ("nul\0 bell\a del\x7f csi\x9b!", "nul bell del csi!"),
        ("half \ud83d pair", "half \ufffd pair"),
        ("\udc00", "\ufffd"),
        ("\ud83d\ude00 joined", "😀 joined"),
        ("\ufeffmark stays", "\ufeffmark stays"),
        ("مرحبا \u202bبالعالم\u202c", "مرحبا \u202bبالعالم\u202c"),  # noqa: RUF001
        ("👩‍👩‍👧 日本 e\u0301", "👩‍👩‍👧 日本 e\u0301"),
    ],
)
def test_clean(raw: str, cleaned: str):
    assert clean(raw) == cleaned


@given(st.text(st.characters()))
def test_cleaned_text_can_be_stored(raw: str):
    text = clean(raw)
    kind = Caption.makes[0].kind
    assert kind.decode(kind.encode(kind.check(text))) == text
    assert clean(text) == text


def test_a_caption_of_1_mb():
    start = time.process_time()
    for text in ("word " * 200_000, "e" + "\u0301\u0323" * 500_000, "\ud800" * 10**6):
        (caption,) = captions(text)
        assert caption is not None
        assert len(caption) > 900_000
    assert time.process_time() - start < 5


@pytest.mark.parametrize("value", [3, b"bytes", {"caption": "x"}, [3]])
def test_a_caption_that_is_no_text(value: object):
    with pytest.raises(ValueError, match=r"corpus field 'caption' holds a (int|bytes|dict), not a text"):
        captions(value)


def test_caption_from_another_field():
    labeler = Caption(CaptionParams(field="alt"))
    assert labeler.label(Batch(["a"], None, [], [{"alt": "x", "caption": "y"}]))["caption"] == ["x"]


# --- canny_edge ---


def test_edges_stand_where_the_step_is():
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[:, :, 32:, 1] = 200
    (edges,) = CannyEdge().label(batch_of(image))["canny_edge"]
    assert set(np.unique(edges)) == {0, 255}
    assert set(np.flatnonzero(edges.any(axis=0))) <= {31, 32}
    assert (edges[:, 31:33] == 255).any(axis=1).all()


def test_edges_are_opencvs_on_rgb():
    labels = CannyEdge(CannyEdgeParams(low=50, high=80)).label(batch_of(PHOTOS))["canny_edge"]
    np.testing.assert_array_equal(labels[0], cv2.Canny(PHOTOS[0], 50, 80))
    assert labels[0].mean() > CannyEdge().label(batch_of(PHOTOS))["canny_edge"][0].mean()


@pytest.mark.parametrize("params", [{"low": 300}, {"low": -1}, {"treshold": 3}])
def test_edge_parameters_that_make_no_sense(params: dict):
    with pytest.raises(ValidationError):
        CannyEdgeParams(**params)


# --- color_palette ---


def test_palette_of_three_flat_colours():
    image = np.zeros((256, 256, 3), np.uint8)
    image[:128], image[128:204], image[204:] = (200, 30, 30), (20, 180, 40), (10, 20, 220)
    found = palettes(image)
    assert found["3"] == found["7"] == [[200, 30, 30], [20, 180, 40], [10, 20, 220]]
    assert found["1"] == [pytest.approx(image.mean(axis=(0, 1)), abs=1)]


def test_an_even_image_has_one_colour():
    assert palettes(np.full((9, 9, 3), 77, np.uint8)) == {str(k): [[77, 77, 77]] for k in range(1, 8)}


@pytest.mark.parametrize("photo", PHOTOS[:4])
def test_palettes_are_as_good_as_opencvs_kmeans(photo: np.ndarray):
    pixels = np.asarray(Image.fromarray(photo).resize((64, 64), Image.Resampling.BOX)).reshape(-1, 3).astype(np.float32)
    cv2.setRNGSeed(1)
    for k in range(1, 8):
        _, _, centres = cv2.kmeans(pixels, k, None, (3, 50, 0.1), 5, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
        found = np.array(palettes(photo)[str(k)])
        assert len(found) == k
        assert loss(pixels, found) < 1.15 * loss(pixels, centres)


def loss(pixels: np.ndarray, centres: np.ndarray) -> float:
    return float(((pixels[:, None] - centres) ** 2).sum(axis=2).min(axis=1).mean())


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))))
def test_palettes_of_any_image(image: np.ndarray):
    found = palettes(image)
    losses = [loss(image.reshape(-1, 3).astype(float), np.array(found[str(k)])) for k in range(1, 8)]
    for k in range(1, 8):
        assert 1 <= len(found[str(k)]) <= k
        assert all(0 <= value <= 255 and type(value) is int for colour in found[str(k)] for value in colour)
    assert losses[6] <= losses[0] + 1


def test_the_largest_share_comes_first():
    pixels = np.asarray(Image.fromarray(PHOTOS[1]).resize((64, 64), Image.Resampling.BOX)).reshape(-1, 3).astype(int)
    centres = np.array(palettes(PHOTOS[1])["5"])
    shares = np.bincount(((pixels[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1), minlength=5)
    assert (np.diff(shares) <= 40).all()  # 1 % of the pixels: shares were counted on cells of like colours


# --- metadata ---


def test_metadata_has_the_fields_that_its_tokenizer_has_bins_for():
    assert tuple(METADATA) == FIELDS
    assert len(FIELDS) == 21


def test_what_pixels_alone_tell():
    (record,) = Metadata().label(batch_of(PHOTOS[:1]))["metadata"]
    assert set(record) == {
        *("original_width", "original_height"),
        *("colorfulness", "brightness", "contrast", "saturation", "entropy"),
    }
    assert (record["original_width"], record["original_height"]) == (640, 480)


def test_pixel_fields_of_plain_images():
    black, white, _, ramp = (pixel_fields(image) for image in ODD)
    assert black == dict.fromkeys(black, 0.0)
    assert white == {"brightness": 255, "contrast": 0, "saturation": 0, "entropy": 0, "colorfulness": 0}
    assert ramp["brightness"] == pytest.approx(111.5)
    assert ramp["contrast"] == pytest.approx(np.arange(224).std())
    assert ramp["entropy"] == pytest.approx(np.log2(224))
    assert pixel_fields(np.full((4, 4, 3), (255, 0, 0), np.uint8))["saturation"] == 255


@pytest.mark.parametrize("photo", PHOTOS)
def test_pixel_fields_against_float_formulas(photo: np.ndarray):
    found = pixel_fields(photo)
    luma = photo @ [0.299, 0.587, 0.114]
    assert found["brightness"] == pytest.approx(luma.mean(), abs=0.5)
    assert found["contrast"] == pytest.approx(luma.std(), abs=0.5)
    assert found["saturation"] == pytest.approx(cv2.cvtColor(photo, cv2.COLOR_RGB2HSV)[..., 1].mean(), abs=0.6)
    assert found["entropy"] == pytest.approx(Image.fromarray(photo).convert("L").entropy(), abs=1e-9)
    red, green, blue = np.moveaxis(photo.astype(float), 2, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert colorfulness(photo) == pytest.approx(expected)


def test_fields_from_the_caption():
    (record,) = Metadata().label(batch_of(PHOTOS[:1], caption="A red cat. It sleeps!"))["metadata"]
    assert [record[name] for name in FIELDS[2:5]] == [21, 5, 2]
    assert "caption_n_chars" not in Metadata().label(batch_of(PHOTOS[:1], caption=None))["metadata"][0]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("no end", 1),
        ("One. Two", 2),
        ("3.5 m wide.", 1),
        ("What?! Yes...", 2),
        ("你好。再见！", 2),  # noqa: RUF001
        ("...", 1),
    ],
)
def test_count_sentences(text: str, sentences: int):
    assert count_sentences(text) == sentences


def test_fields_from_the_corpus():
    fields = {"aesthetic_score": 5.43219, "watermark_score": 0}
    (record,) = Metadata().label(batch_of(PHOTOS[:1], fields))["metadata"]
    assert (record["aesthetic_score"], record["watermark_score"]) == (5.4322, 0.0)
    for value in ("5.4", None, float("nan"), True, [1.0]):
        assert (
            "aesthetic_score" not in Metadata().label(batch_of(PHOTOS[:1], {"aesthetic_score": value}))["metadata"][0]
        )


def test_fields_from_instances():
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (3, 1))
    three = InstanceSet(boxes, ["cat", "dog", "cat"])
    (record,) = Metadata().label(
        batch_of(PHOTOS[:1], det=three, human_poses=InstanceSet.empty(), sam_instance=three.take([0, 1]))
    )["metadata"]
    counts = {name: record[name] for name in FIELDS[5:9]}
    assert counts == {"n_humans": 0, "n_sam_instances": 2, "n_coco_instances": 3, "coco_instance_diversity": 2}


def test_fields_from_segmentation():
    """A quarter road (walkable background), a quarter sky (background), a quarter person (object), a quarter void."""
    classes = np.repeat(np.array([100, 119, 0, 255], np.uint8), 16).reshape(8, 8)
    assert segmentation_fields(classes) == {"walkability": 0.25, "objectness": 0.25, "semantic_diversity": 3}


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint16])
def test_geometric_complexity(dtype: type):
    def as_label(normals: list) -> np.ndarray:
        array = np.array(normals, np.float64)[None]
        scale = 1 if dtype is np.float32 else np.iinfo(dtype).max
        return array.astype(dtype) if dtype is np.float32 else ((array + 1) / 2 * scale).round().astype(dtype)

    assert geometric_complexity(as_label([[0, 0, 1]] * 5)) == pytest.approx(0, abs=0.01)
    assert geometric_complexity(as_label([[0, 0, 1], [0, 0, -1]])) == pytest.approx(1, abs=0.01)
    assert geometric_complexity(as_label([[1, 0, 0], [0, 1, 0]])) == pytest.approx(1 - 0.5**0.5, abs=0.01)
    assert geometric_complexity(as_label([[0, 0, 0]])) is None
    assert geometric_complexity(as_label([[0, 0, 0], [0, 0, 1]])) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint16])
def test_occlusion_score(dtype: type):
    step = np.zeros((100, 100), dtype)
    assert occlusion_score(step) == 0
    step[:, 50:] = 100
    assert occlusion_score(step) == pytest.approx(0.02)
    ramp = np.linspace(0, 250, 100).astype(dtype)[None].repeat(100, axis=0)
    assert occlusion_score(ramp) == 0


def test_fields_from_maps():
    normals = np.zeros((224, 224, 3), np.float32)
    depth = PHOTOS[0, ..., 0]
    (record,) = Metadata().label(batch_of(PHOTOS[:1], normal=normals, depth=depth, semseg_coco=depth))["metadata"]
    assert "geometric_complexity" not in record
    assert 0 < record["occlusion_score"] < 1
    assert record["semantic_diversity"] > 100
