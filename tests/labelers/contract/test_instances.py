"""InstanceSet: what it refuses, how it is written down, and how a view crops it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tokenloom.labelers.contract.instances import InstanceSet, Mask
from tokenloom.labelers.contract.kinds import Instances, kind_from
from tokenloom.labelers.contract.views import View, ViewSettings, cut_view

ATTRIBUTES = {"pose": (2, 3), "scale": ()}
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def instance_sets(draw: st.DrawFn, mask_size: int = 12) -> InstanceSet:
    count = draw(st.integers(0, 5))
    corners = draw(hnp.arrays(np.float32, (count, 2, 2), elements=st.floats(0, 1, width=32)))
    texts = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=count, max_size=count)
    masks = draw(hnp.arrays(bool, (count, mask_size, mask_size)))
    masks[:, -1, 0] |= ~masks.any(axis=(1, 2))  # of an empty one a view sees nothing
    return InstanceSet(
        boxes=np.sort(corners, axis=1).reshape(count, 4),
        labels=draw(texts),
        scores=draw(hnp.arrays(np.float32, count, elements=finite)),
        texts=draw(texts),
        masks=[Mask.from_array(mask) for mask in masks],
        attributes={
            name: draw(hnp.arrays(np.float32, (count, *shape), elements=finite)) for name, shape in ATTRIBUTES.items()
        },
    )


def whole(side: int, size: int, hflip: bool = False) -> View:
    return View(1, 0, 0, side, side, hflip, size, side, side)


def problem(instances: InstanceSet, masks=False, scores=False, texts=False, attributes=None) -> str:
    return instances.problem(masks, scores, texts, attributes or {}) or ""


BOXES = np.array([[0.1, 0.2, 0.5, 0.6], [0.4, 0.4, 0.9, 1.0]], np.float32)
TWO = InstanceSet(BOXES, ["a", "b"])


@given(hnp.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_masks_round_trip(mask: np.ndarray):
    np.testing.assert_array_equal(Mask.from_array(mask).to_array(), mask)


# --- writing down ---


@pytest.mark.slow
@given(instance_sets())
def test_json_round_trip_is_exact(instances: InstanceSet):
    back = InstanceSet.from_json(json.loads(json.dumps(instances.to_json())))
    assert back == instances
    np.testing.assert_array_equal(back.boxes, instances.boxes)
    np.testing.assert_array_equal(back.scores, instances.scores)
    for name, values in instances.attributes.items():
        np.testing.assert_array_equal(back.attributes[name], values)
        assert back.attributes[name].dtype == np.float32
    assert back.problem(True, True, True, ATTRIBUTES) is None


def test_json_leaves_out_what_there_is_not():
    assert TWO.to_json().keys() == {"boxes", "labels"}
    assert InstanceSet.from_json(TWO.to_json()) == TWO


def test_empty_round_trip_keeps_shapes():
    empty = InstanceSet.empty(masks=True, scores=True, texts=True, attributes=ATTRIBUTES)
    assert len(empty) == 0
    back = InstanceSet.from_json(json.loads(json.dumps(empty.to_json())))
    assert back.problem(True, True, True, ATTRIBUTES) is None
    assert back.attributes["pose"].shape == (0, 2, 3)


def test_equality_looks_at_everything():
    assert InstanceSet(BOXES.copy(), ("a", "b")) == TWO
    assert InstanceSet(BOXES, ["a", "c"]) != TWO
    assert replace(TWO, scores=np.zeros(2, np.float32)) != TWO
    assert TWO != "a"


# --- refusals ---


def test_good_instances_have_no_problem():
    assert TWO.problem(False, False, False, {}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": BOXES.tolist()}, "boxes: a list, not a float32 array"),
        ({"boxes": BOXES.astype(np.float64)}, "boxes: an array of float64"),
        ({"boxes": BOXES[:, :3]}, "boxes: shape (2, 3), not (2, 4)"),
        ({"boxes": BOXES[0]}, "boxes: shape (4,), not (4, 4)"),
        ({"boxes": BOXES * np.float32(np.nan)}, "boxes: 8 of 8 numbers are NaN or infinite"),
        ({"boxes": BOXES[:, ::-1].copy()}, "box 0 is [0.6, 0.5, 0.2, 0.1]"),
        ({"boxes": BOXES + 0.5}, "box 0 is [0.6, 0.7, 1.0, 1.1]"),
        ({"boxes": BOXES - np.array([[0], [0.5]], np.float32)}, "box 1 is [-0.1, -0.1, 0.4, 0.5]"),
        ({"labels": ["a"]}, "there are 1 labels for 2 boxes"),
        ({"labels": "ab"}, "labels: a str, not a list of str"),
        ({"labels": ["a", 3]}, "labels[1] is a int"),
        ({"labels": ["a", "\ud800"]}, "labels[1] holds half of a surrogate pair"),
        ({"scores": np.zeros(2, np.float32)}, "there are scores, of which the kind knows nothing"),
        ({"texts": ["a", "b"]}, "there are texts, of which"),
        ({"masks": []}, "there are masks, of which"),
        ({"attributes": {"pose": BOXES}}, "there are the attributes ['pose']; the kind has []"),
    ],
)
def test_problems(change: dict, message: str):
    assert message in problem(replace(TWO, **change))


MASK = Mask.from_array(np.ones((4, 4), bool))


@pytest.mark.parametrize(
    ("change", "promise", "message"),
    [
        ({}, {"scores": True}, "there are no scores, which the kind promises"),
        ({}, {"texts": True}, "there are no texts"),
        ({}, {"masks": True}, "there are no masks"),
        ({}, {"attributes": {"pose": ()}}, "the kind has ['pose']"),
        ({"scores": np.zeros(3, np.float32)}, {"scores": True}, "scores: shape (3,), not (2,)"),
        ({"scores": np.array([0, np.inf], np.float32)}, {"scores": True}, "scores: 1 of 2 numbers"),
        ({"texts": ["a", "\udfff"]}, {"texts": True}, "texts[1] holds half of a surrogate"),
        ({"masks": [MASK]}, {"masks": True}, "there are 1 masks for 2 boxes"),
        ({"masks": [MASK, np.ones((4, 4))]}, {"masks": True}, "mask 1 is a ndarray, not a Mask"),
        ({"masks": [MASK, Mask.from_array(np.ones((4, 5)))]}, {"masks": True}, "differ in size: [(4, 4), (4, 5)]"),
        (
            {"attributes": {"pose": np.zeros((2, 3), np.float32)}},
            {"attributes": {"pose": (4,)}},
            "attribute pose: shape (2, 3), not (2, 4)",
        ),
    ],
)
def test_problems_with_promised_parts(change: dict, promise: dict, message: str):
    assert message in problem(replace(TWO, **change), **promise)


# --- views ---


@pytest.mark.slow
@given(instance_sets())
def test_the_whole_square_image_changes_nothing(instances: InstanceSet):
    assert instances.crop(whole(77, 12)) == instances


@pytest.mark.slow
@given(instance_sets())
def test_mirrored_twice_is_the_same(instances: InstanceSet):
    once = instances.crop(whole(77, 12, hflip=True))
    twice = once.crop(whole(77, 12, hflip=True))
    assert once.problem(True, True, True, ATTRIBUTES) is None
    np.testing.assert_allclose(twice.boxes, instances.boxes, atol=1e-6)
    assert replace(twice, boxes=instances.boxes) == instances


@pytest.mark.slow
@given(instance_sets(), st.integers(1, 300), st.integers(1, 300), st.integers(0, 3), st.text(max_size=3))
def test_cropped_instances_have_no_problem(instances: InstanceSet, height: int, width: int, index: int, key: str):
    view = cut_view(0, key, index, height, width, ViewSettings(size=12, min_scale=0.1))
    seen = instances.crop(view)
    assert seen.problem(True, True, True, ATTRIBUTES) is None
    assert len(seen) <= len(instances)
    assert all((mask.height, mask.width) == (12, 12) for mask in seen.masks or ())


def filled(box: np.ndarray, height: int, width: int) -> np.ndarray:
    """The box as a mask: pixels whose centre lies in it."""
    y, x = (np.arange(height) + 0.5)[:, None] / height, (np.arange(width) + 0.5) / width
    return (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])


@pytest.mark.slow
@given(
    st.lists(st.tuples(*[st.integers(0, 16)] * 4), min_size=1, max_size=4),
    st.tuples(st.integers(0, 15), st.integers(0, 15), st.integers(1, 16), st.integers(1, 16)),
    st.booleans(),
)
def test_cropping_commutes_with_filling_boxes(corners: list[tuple], crop: tuple[int, int, int, int], hflip: bool):
    """Boxes and crop lie on a grid of 16 x 16, so that no pixel's centre is near an edge."""
    boxes = np.sort(np.array(corners, np.float32).reshape(-1, 2, 2), axis=1).reshape(-1, 4) / 16
    top, left, height, width = crop[0], crop[1], min(crop[2], 16 - crop[0]), min(crop[3], 16 - crop[1])
    view = View(1, top * 4, left * 4, height * 4, width * 4, hflip, 4 * height * width, 64, 64)
    masks = [Mask.from_array(filled(box, 64, 64)) for box in boxes]
    seen = InstanceSet(boxes, [str(index) for index in range(len(boxes))], masks=masks).crop(view)
    for box, mask in zip(seen.boxes, seen.masks or (), strict=True):
        np.testing.assert_array_equal(filled(box, view.size, view.size), mask.to_array())
    for index in set(range(len(boxes))) - {int(label) for label in seen.labels}:
        x0, y0, x1, y1 = boxes[index] * 16
        assert x1 <= left or x0 >= left + width or y1 <= top or y0 >= top + height or x0 == x1 or y0 == y1


@pytest.mark.slow
@given(
    hnp.arrays(bool, (8, 12)),
    st.tuples(st.integers(0, 31), st.integers(0, 47), st.integers(1, 32), st.integers(1, 48)),
    st.booleans(),
)
def test_the_box_is_that_of_what_is_seen_of_the_mask(mask: np.ndarray, crop: tuple[int, ...], hflip: bool):
    """A mask of 8 x 12 for an image of 32 x 48, against a count of the image's pixels one by one."""
    top, left, height, width = crop[0], crop[1], min(crop[2], 32 - crop[0]), min(crop[3], 48 - crop[1])
    mask[3, 5] = True
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    tight = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32) / [12, 8, 12, 8]
    label = InstanceSet(tight.astype(np.float32)[None], ["a"], masks=[Mask.from_array(mask)])
    view = View(1, top, left, height, width, hflip, 4 * height * width, 32, 48)
    pixels = np.repeat(np.repeat(mask, 4, axis=0), 4, axis=1)[top : top + height, left : left + width]
    pixels = pixels[:, ::-1] if hflip else pixels
    seen = label.crop(view)
    assert len(seen) == int(pixels.any())
    if len(seen):
        y, x = pixels.nonzero()
        expected = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1]) / [width, height, width, height]
        np.testing.assert_allclose(seen.boxes[0], expected, atol=1e-6)


def test_a_box_that_the_view_does_not_cut_stays_as_the_labeler_gave_it():
    label = InstanceSet(BOXES[:1], ["a"], masks=[Mask.from_array(filled(np.array([0.2, 0.3, 0.4, 0.5]), 100, 100))])
    assert label.crop(View(1, 0, 0, 80, 80, False, 40, 100, 100)).boxes[0] == pytest.approx(BOXES[0] / 0.8)


def test_a_mask_too_thin_for_the_views_pixels_is_not_seen():
    thin = np.zeros((100, 100), bool)
    thin[10:90, 31] = True
    label = InstanceSet(np.array([[0.31, 0.1, 0.32, 0.9]], np.float32), ["a"], masks=[Mask.from_array(thin)])
    assert len(label.crop(whole(100, 100))) == 1
    assert len(label.crop(whole(100, 4))) == 0


@given(
    hnp.arrays(np.float32, (2, 3, 2), elements=st.floats(-1, 2, width=32)),
    st.tuples(st.integers(0, 29), st.integers(0, 39), st.integers(1, 30), st.integers(1, 40)),
)
def test_points_stay_on_their_pixels(points: np.ndarray, crop: tuple[int, ...]):
    kind = Instances(attributes={"marks": (3, 2), "other": ()}, points=("marks",))
    label = replace(
        TWO,
        boxes=np.tile(np.array([0, 0, 1, 1], np.float32), (2, 1)),
        attributes={"marks": points, "other": np.arange(2, dtype=np.float32)},
    )
    top, left, height, width = crop[0], crop[1], min(crop[2], 30 - crop[0]), min(crop[3], 40 - crop[1])
    seen = kind.check(kind.crop(label, View(1, top, left, height, width, False, 9, 30, 40))).attributes
    mirrored = kind.crop(label, View(1, top, left, height, width, True, 9, 30, 40)).attributes
    np.testing.assert_allclose(seen["marks"] * [width, height] + [left, top], points * [40, 30], atol=1e-4)
    np.testing.assert_allclose(mirrored["marks"][..., 0] + seen["marks"][..., 0], 1, atol=1e-4)
    np.testing.assert_array_equal(mirrored["marks"][..., 1], seen["marks"][..., 1])
    np.testing.assert_array_equal(seen["other"], [0, 1])
    assert kind_from(json.loads(json.dumps(kind.describe()))) == kind


@pytest.mark.parametrize("name", ["where", "score"])
def test_points_are_attributes_of_x_and_y(name: str):
    with pytest.raises(ValueError, match="points must be attributes of x and y"):
        Instances(attributes={"score": (3,)}, points=(name,))


def test_what_comes_along():
    instances = replace(TWO, scores=np.array([0.5, 0.7], np.float32), attributes={"pose": np.eye(2, dtype=np.float32)})
    seen = instances.crop(View(0, 70, 50, 30, 50, False, 10, 100, 100))
    assert seen.labels == ["b"]
    assert seen.boxes[0] == pytest.approx([0, 0, 0.8, 1])
    assert seen.scores == pytest.approx([0.7])
    np.testing.assert_array_equal(seen.attributes["pose"], [[0, 1]])
    mirrored = instances.crop(View(0, 70, 50, 30, 50, True, 10, 100, 100))
    assert mirrored.boxes[0] == pytest.approx([0.2, 0, 1, 1])
