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
from tokenloom.labelers.contract.views import View, ViewSettings, cut_view

ATTRIBUTES = {"pose": (2, 3), "scale": ()}
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def instance_sets(draw: st.DrawFn, mask_size: int = 12) -> InstanceSet:
    count = draw(st.integers(0, 5))
    corners = draw(hnp.arrays(np.float32, (count, 2, 2), elements=st.floats(0, 1, width=32)))
    texts = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=count, max_size=count)
    masks = draw(hnp.arrays(bool, (count, mask_size, mask_size)))
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
        assert x1 <= left or x0 >= left + width or y1 <= top or y0 >= top + height


def test_what_comes_along():
    instances = replace(TWO, scores=np.array([0.5, 0.7], np.float32), attributes={"pose": np.eye(2, dtype=np.float32)})
    seen = instances.crop(View(0, 70, 50, 30, 50, False, 10, 100, 100))
    assert seen.labels == ["b"]
    assert seen.boxes[0] == pytest.approx([0, 0, 0.8, 1])
    assert seen.scores == pytest.approx([0.7])
    np.testing.assert_array_equal(seen.attributes["pose"], [[0, 1]])
    mirrored = instances.crop(View(0, 70, 50, 30, 50, True, 10, 100, 100))
    assert mirrored.boxes[0] == pytest.approx([0.2, 0, 1, 1])
