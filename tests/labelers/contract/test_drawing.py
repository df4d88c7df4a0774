"""Crops, PNGs and pictures of labels: what is where, and in what colour."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tokenloom.labelers.contract import codecs, crops, drawing
from tokenloom.labelers.contract.instances import InstanceSet, Mask
from tokenloom.labelers.contract.views import View

PHOTO = skimage.data.astronaut()[:224, 100:324]


def whole(size: int, height: int, width: int, hflip: bool = False) -> View:
    return View(1, 0, 0, height, width, hflip, size, height, width)


# --- PNG ---

depths = st.sampled_from([np.uint8, np.uint16])
sides = st.integers(1, 9)


@given(
    depths.flatmap(
        lambda depth: hnp.arrays(depth, st.one_of(st.tuples(sides, sides), st.tuples(sides, sides, st.just(3))))
    )
)
def test_png_is_lossless(array: np.ndarray):
    back = codecs.from_png(codecs.to_png(array))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_png_holds_rgb_for_other_readers():
    import io

    from PIL import Image

    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    assert Image.open(io.BytesIO(codecs.to_png(red))).convert("RGB").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 2), np.uint8), np.zeros(4, np.uint8)])
def test_png_of_what_it_cannot_hold(array: np.ndarray):
    with pytest.raises(ValueError, match="PNG holds"):
        codecs.to_png(array)


@pytest.mark.parametrize("data", [b"", b"not a png"])
def test_bytes_that_are_no_png(data: bytes):
    with pytest.raises(ValueError, match="not a PNG"):
        codecs.from_png(data)


# --- crops ---


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("nearest", [True, False])
@pytest.mark.parametrize("channels", [None, 2, 3])
def test_whole_view_at_the_same_size_is_the_label(dtype: type, nearest: bool, channels: int | None):
    label = np.random.default_rng(0).integers(0, 200, (12, 12, channels) if channels else (12, 12)).astype(dtype)
    for view, expected in ((whole(12, 60, 60), label), (whole(12, 60, 60, hflip=True), label[:, ::-1])):
        cut = crops.crop_map(label, view, nearest)
        assert cut.dtype == dtype
        np.testing.assert_array_equal(cut, expected)


@pytest.mark.parametrize("nearest", [True, False])
def test_crop_at_another_resolution_takes_the_same_place(nearest: bool):
    """The map has half of the image's resolution; the view is the image's lower right quarter."""
    label = np.zeros((40, 60), np.uint16)
    label[20:, 30:] = 50_000
    view = View(0, 40, 60, 40, 60, False, 10, 80, 120)
    assert (crops.crop_map(label, view, nearest)[1:, 1:] == 50_000).all()
    label[20:, 30:45] = 7
    cut = crops.crop_map(label, View(0, 40, 60, 40, 60, True, 10, 80, 120), nearest)
    assert (cut[1:, 6:-1] == 7).all()
    assert (cut[1:, 1:4] == 50_000).all()


@given(
    hnp.arrays(np.uint16, st.tuples(sides, sides), elements=st.sampled_from([0, 3, 132, 65_535])),
    st.integers(1, 30),
    st.booleans(),
    st.data(),
)
def test_classes_are_never_mixed(label: np.ndarray, size: int, hflip: bool, data: st.DataObject):
    height, width = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 50))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    view = View(1, top, left, height - top, width - left, hflip, size, height, width)
    cut = crops.crop_map(label, view, nearest=True)
    assert cut.shape == (size, size)
    assert set(np.unique(cut)) <= set(np.unique(label))


def test_floats_are_averaged_when_they_shrink():
    label = np.indices((64, 64)).sum(axis=0).astype(np.float32) % 2
    assert crops.crop_map(label, whole(8, 64, 64), nearest=False)[2:-2, 2:-2] == pytest.approx(0.5, abs=0.02)


@given(hnp.arrays(np.uint16, st.tuples(sides, sides)), st.integers(1, 20))
def test_interpolation_stays_in_range(label: np.ndarray, size: int):
    cut = crops.crop_map(label, whole(size, *label.shape), nearest=False)
    assert cut.min() >= label.min()
    assert cut.max() <= label.max()


# --- pictures ---


def check_picture(picture: object) -> np.ndarray:
    assert isinstance(picture, np.ndarray)
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    return picture


def test_colours_and_edges_are_shown_as_they_are():
    np.testing.assert_array_equal(drawing.draw_map(PHOTO, "colour"), PHOTO)
    np.testing.assert_array_equal(drawing.draw_map(PHOTO.astype(np.uint16) * 257, "colour"), PHOTO)
    np.testing.assert_array_equal(drawing.draw_map(PHOTO.astype(np.float32) / 255, "colour"), PHOTO)
    edges = np.zeros((4, 4), np.uint8)
    edges[1] = 255
    picture = check_picture(drawing.draw_map(edges, "intensity"))
    assert (picture[1] == 255).all()
    assert (picture[2] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_depth_gets_brighter_with_its_value(dtype: type):
    depth = np.linspace(0, 10_000, 100).astype(dtype).reshape(1, 100)
    lightness = check_picture(drawing.draw_map(depth, "intensity")).astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness[0, ::5]) > 0).all()
    assert len(np.unique(drawing.draw_map(depth, "intensity").reshape(-1, 3), axis=0)) > 80


def test_an_even_map_is_one_colour():
    assert len(np.unique(drawing.draw_map(np.full((5, 5), 3, np.float32), "intensity").reshape(-1, 3), axis=0)) == 1


def test_normals():
    facing = np.zeros((2, 2, 3), np.float32)
    facing[..., 2] = 1
    facing[0, 0] = (-1, 0, 0)
    picture = check_picture(drawing.draw_map(facing, "normals"))
    assert picture[1, 1].tolist() == [128, 128, 255]
    assert picture[0, 0].tolist() == [0, 128, 128]
    np.testing.assert_array_equal(drawing.draw_map(picture, "normals"), picture)


def test_classes_have_colours_of_their_own():
    ids = np.arange(134)
    colours = drawing.class_colours(ids)
    assert len(np.unique(colours, axis=0)) == 134
    distance = np.abs(colours[1:].astype(int) - colours[:-1]).sum(axis=1)
    assert distance.min() > 60
    np.testing.assert_array_equal(drawing.draw_map(ids.astype(np.uint8)[None], "classes")[0], colours)


def test_a_map_of_many_channels_is_drawn_by_pca():
    assert check_picture(drawing.draw_map(np.random.default_rng(0).random((8, 8, 5), np.float32), "colour")).any()


def test_pca_tells_regions_apart():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 32))
    features = np.empty((32, 16, 16), np.float16)
    features[:, :, :8], features[:, :, 8:] = left[:, None, None], right[:, None, None]
    features += rng.normal(scale=0.01, size=features.shape).astype(np.float16)
    picture = check_picture(drawing.pca_colours(features))
    assert picture.shape == (224, 224, 3)
    red = picture[..., 0].astype(int)
    assert abs(red[:, :112].mean() - red[:, 112:].mean()) > 200
    np.testing.assert_array_equal(picture, drawing.pca_colours(features.copy()))
    assert (picture[:14, :14] == picture[0, 0]).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 1), (4, 16, 16), (768, 2, 2)])
def test_pca_of_odd_shapes(shape: tuple[int, int, int]):
    check_picture(drawing.pca_colours(np.ones(shape, np.float16)))


def test_bars_are_blue_below_zero_and_red_above():
    vector = np.zeros(384, np.float32)
    vector[0], vector[383] = -3, 3
    picture = check_picture(drawing.draw_bars(vector)).astype(int)
    first, last = (
        picture[0, 0],
        picture.reshape(-1, 3)[np.flatnonzero((picture[..., 0] > 180) & (picture[..., 1] < 60))],
    )
    assert first[2] > first[0] + 100
    assert len(last)
    middle = picture[picture.shape[0] // 2, 5]
    assert middle.min() > 230


@pytest.mark.parametrize("dim", [1, 2, 7, 1280, 4096])
def test_bars_of_any_length(dim: int):
    assert check_picture(drawing.draw_bars(np.ones(dim, np.float32))).shape[1] <= 600


def test_heatmap_rows_and_columns():
    array = np.zeros((4, 384), np.float16)
    array[1, :] = 5
    picture = check_picture(drawing.draw_heatmap(array)).astype(int)
    row = picture.shape[0] // 4
    assert (picture[row : 2 * row, :, 0] > picture[row : 2 * row, :, 2] + 100).all()
    assert (picture[:row].min() > 230).all()


@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (77, 4096), (300, 5)])
def test_heatmaps_of_any_shape(shape: tuple[int, int]):
    picture = check_picture(drawing.draw_heatmap(np.ones(shape, np.float16)))
    assert max(picture.shape) <= 600


# --- instances ---


def instances(**parts: object) -> InstanceSet:
    boxes = np.array([[0.25, 0.25, 0.75, 0.75], [0.8, 0.8, 0.95, 0.9]], np.float32)
    return InstanceSet(boxes, ["cat", "dog"], **parts)  # type: ignore[arg-type]


def test_no_instances_leave_the_picture_alone():
    grey = np.full((448, 448, 3), 99, np.uint8)
    np.testing.assert_array_equal(drawing.draw_instances(InstanceSet.empty(masks=True), grey), grey)


def test_boxes_are_drawn_where_they_are():
    black = np.zeros((100, 100, 3), np.uint8)
    picture = check_picture(drawing.draw_instances(instances(), black))
    assert picture.shape == (500, 500, 3)
    colour = drawing.class_colours(np.arange(2))[0]
    assert (picture[300, 125] == colour).all()  # left side
    assert (picture[374, 250] == colour).all()  # bottom
    assert not picture[300, 250].any()  # inside
    assert not picture[300, 100].any()  # outside


def test_masks_tint_their_area_and_outline_it():
    mask = np.zeros((448, 448), bool)
    mask[150:300, 150:300] = True
    drawn = instances(masks=[Mask.from_array(mask), Mask.from_array(np.zeros_like(mask))])
    picture = drawing.draw_instances(drawn, np.full((448, 448, 3), 200, np.uint8))
    colour = drawing.class_colours(np.arange(2))[0]
    assert picture[225, 225] == pytest.approx(200 * 0.55 + colour * 0.45, abs=1)
    assert (picture[225, 150] == colour).all()
    assert (picture[140, 225] == 200).all()


def test_tags_stand_above_their_box():
    black = np.zeros((448, 448, 3), np.uint8)
    drawn = drawing.draw_instances(instances(scores=np.array([0.5, 0.9], np.float32)), black)
    top = round(0.25 * 447)
    assert drawn[top - 10 : top - 2, 114:140].any(axis=2).all()


@pytest.mark.parametrize("text", ["", "مرحبا", "日本語", "👩‍👩‍👧", "a\nb\tc\0d", "x" * 5000])
def test_any_text_can_be_drawn(text: str):
    check_picture(drawing.draw_instances(instances(texts=[text, text]), PHOTO))


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 700, 3)])
def test_any_image_can_be_drawn_on(shape: tuple[int, int, int]):
    check_picture(drawing.draw_instances(instances(), np.zeros(shape, np.uint8)))
