"""Errors of reconstructions: against values worked out by hand, scikit-image and scikit-learn, and their properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation
from tokenloom.labelers.contract.instances import InstanceSet, Mask
from tokenloom.labelers.contract.kinds import Embeddings, FeatureMap, Image, Instances, LabelError, Record, Text, Vector
from tokenloom.labelers.contract.poses import ATTRIBUTES
from tokenloom.tokenizers.measures.measures import (
    HIGHEST_PSNR,
    ClassCounts,
    aligned,
    depth_errors,
    edge_f1,
    mask_ious,
    mean_angle,
    mean_cosine,
    psnr,
    relative_difference,
    rotation_angles,
    ssim,
    word_f1,
)
from tokenloom.tokenizers.measures.reconstruction import MEASURES, ErrorSum, errors

bytes_of = st.integers(0, 255).map(np.uint8)
images = arrays(np.uint8, (11, 12, 3), elements=bytes_of)  # ssim's window is 11 wide
floats = st.floats(-100, 100, width=32)


def rotations(count: int, seed: int = 0) -> np.ndarray:
    return Rotation.from_quat(np.random.default_rng(seed).normal(size=(count, 4))).as_matrix().astype(np.float32)


# --- colours and edges ------------------------------------------------------------------------------------------------


def test_psnr_of_a_constant_error():
    """Off by 10 everywhere: 20 log10(255 / 10)."""
    label = np.full((4, 4), 100, np.uint8)
    assert psnr(label, label + 10, 255) == pytest.approx(20 * math.log10(25.5))
    assert psnr(label, label - 10, 255) == pytest.approx(20 * math.log10(25.5))  # no wrap below zero
    assert psnr(label, label, 255) == HIGHEST_PSNR


@pytest.mark.slow
@settings(max_examples=20)
@given(images, images)
def test_psnr_is_that_of_scikit_image(first, second):
    reference = pytest.importorskip("skimage.metrics").peak_signal_noise_ratio
    if not (first == second).all():
        assert psnr(first, second, 255) == pytest.approx(min(HIGHEST_PSNR, reference(first, second, data_range=255)))
    assert psnr(first, second, 255) == psnr(second, first, 255)


@pytest.mark.slow
@settings(max_examples=20)
@given(images, images)
def test_ssim_is_that_of_scikit_image(first, second):
    reference = pytest.importorskip("skimage.metrics").structural_similarity
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    assert ssim(first, second, 255) == pytest.approx(reference(first, second, channel_axis=2, **window), abs=1e-9)
    grey = ssim(first[..., 0], second[..., 0], 255)
    assert grey == pytest.approx(reference(first[..., 0], second[..., 0], **window), abs=1e-9)
    assert ssim(first, second, 255) == pytest.approx(ssim(second, first, 255))
    assert ssim(first, first, 255) == pytest.approx(1)


def test_ssim_needs_a_window():
    small = np.zeros((10, 40, 3), np.uint8)
    assert ssim(small, small, 255) is None
    assert errors(Image(3), small, small) == {"psnr": HIGHEST_PSNR}


def test_edges_that_are_found_missed_and_made_up():
    label, decoded = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    label[0], decoded[0, :3], decoded[1, 0] = 255, 200, 130
    assert edge_f1(label, decoded, 255) == pytest.approx(2 * 3 / (4 + 4))
    assert edge_f1(np.zeros_like(label), np.zeros_like(label), 255) == 1
    assert edge_f1(np.zeros_like(label), label, 255) == 0


# --- depth ------------------------------------------------------------------------------------------------------------


def test_alignment_is_least_squares():
    rng = np.random.default_rng(0)
    decoded, label = rng.normal(size=(2, 50))
    design = np.stack([decoded, np.ones(50)], axis=1)
    solution = np.linalg.lstsq(design, label, rcond=None)[0]
    np.testing.assert_allclose(aligned(decoded, label), design @ solution, atol=1e-12)
    np.testing.assert_allclose(aligned(np.full(50, 3.0), label), np.full(50, label.mean()))


@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_depth_is_known_up_to_scale_and_shift(scale, shift):
    label = np.random.default_rng(1).uniform(1, 10, (8, 8)).astype(np.float32)
    found = depth_errors(label, label.astype(np.float64) * scale + shift)
    assert found is not None
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[1] == 1


def test_depth_errors_by_hand():
    """Labels 1, 1, 3, 3 and a reconstruction that knows nothing: aligned it is their mean, 2."""
    label = np.array([[1, 1], [3, 3]], np.float32)
    assert depth_errors(label, np.zeros((2, 2), np.float32)) == pytest.approx(((1 + 1 + 1 / 3 + 1 / 3) / 4, 0))
    halves = np.array([[1.0, 1.1, 2, 2]], np.float32)  # pairs at 1.05 and 2
    found = depth_errors(halves, np.array([[0, 0, 1, 1]], np.float32))
    assert found == pytest.approx(((0.05 / 1 + 0.05 / 1.1) / 4, 1), rel=1e-5)


def test_depth_without_values_says_nothing():
    kind = Image(1, "float32", "intensity", unit="relative")
    flat = np.zeros((4, 4), np.float32)
    assert errors(kind, flat, flat) == {}
    label = np.array([[0, 0.001, 1, 2]], np.float32)  # two pixels of next to nothing
    assert set(errors(kind, label, label * 3 + 1)) == {"abs_rel", "delta1"}
    assert errors(kind, label, label * 3 + 1)["abs_rel"] == pytest.approx(0, abs=1e-6)


# --- directions -------------------------------------------------------------------------------------------------------


@given(st.floats(0, 180), st.floats(0.6, 3), st.floats(0.01, 3))
def test_the_angle_between_two_directions(degrees, length, other):
    turned = np.radians(degrees)
    label = length * np.array([[[1, 0, 0]]], np.float64)
    decoded = other * np.array([[[np.cos(turned), np.sin(turned), 0]]])
    assert mean_angle(label, decoded) == pytest.approx(degrees, abs=1e-9)


def test_normals_in_bytes():
    kind = Image(3, "uint8", "normals")
    label = np.array([[[255, 128, 128], [128, 128, 255], [128, 128, 128]]], np.uint8)
    decoded = np.array([[[128, 128, 255], [128, 128, 255], [255, 128, 128]]], np.uint8)
    assert errors(kind, label, label) == {"angle": 0}
    # the last pixel has no direction; bytes are a fraction of a degree off the axes
    assert errors(kind, label, decoded)["angle"] == pytest.approx(90 / 2, abs=0.4)
    assert errors(kind, label[:, 2:], decoded[:, 2:]) == {}
    floats = Image(3, "float32", "normals")
    up, nowhere = np.array([[[0, 0, 1]]], np.float32), np.zeros((1, 1, 3), np.float32)
    assert errors(floats, up, nowhere)["angle"] == pytest.approx(90)


def test_angles_of_rotations_are_those_of_scipy():
    first, second = rotations(50, 1), rotations(50, 2)
    reference = (Rotation.from_matrix(first) * Rotation.from_matrix(second).inv()).magnitude()
    np.testing.assert_allclose(rotation_angles(first, second), np.degrees(reference), atol=1e-4)
    np.testing.assert_allclose(rotation_angles(first, second), rotation_angles(second, first), atol=1e-9)
    assert rotation_angles(first, first).max() == 0
    np.testing.assert_allclose(rotation_angles(first, 1.5 * first), 0, atol=1e-4)  # the nearest rotation is the same


@given(st.floats(0, 179))
def test_a_turn_by_some_degrees(degrees):
    turned = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    assert rotation_angles(np.eye(3), turned) == pytest.approx(degrees, abs=1e-5)


# --- features ---------------------------------------------------------------------------------------------------------


def test_cosines_of_pairs():
    first = np.array([[1, 0], [1, 1], [0, 0], [0, 0]], np.float32)
    second = np.array([[0, 2], [-3, -3], [1, 0], [0, 0]], np.float32)
    assert mean_cosine(first, second) == pytest.approx((0 - 1 + 0 + 1) / 4)


@given(arrays(np.float16, (3, 2, 2), elements=st.floats(-10, 10, width=16)), st.floats(0.1, 10))
def test_features_are_compared_cell_by_cell_by_direction(label, scale):
    kind = FeatureMap(3, 2, 2)
    label[np.abs(label) < 0.01] = 0  # what becomes zero when it is scaled has no direction
    assert errors(kind, label, label)["cosine"] == pytest.approx(1)
    assert errors(kind, label, (label.astype(np.float64) * scale).astype(np.float16))["cosine"] > 0.99
    swapped = np.arange(12, dtype=np.float16).reshape(3, 2, 2)
    by_hand = [
        np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
        for a, b in zip(
            swapped.reshape(3, 4).T.astype(float), swapped[:, ::-1].reshape(3, 4).T.astype(float), strict=True
        )
    ]
    assert errors(kind, swapped, swapped[:, ::-1])["cosine"] == pytest.approx(np.mean(by_hand))


def test_vectors():
    label, decoded = np.array([3, 4], np.float32), np.array([4, 3], np.float32)
    assert errors(Vector(2), label, decoded) == pytest.approx({"cosine": 24 / 25})


# --- classes ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(arrays(np.uint8, (5, 6), elements=st.integers(0, 4)), arrays(np.uint8, (5, 6), elements=st.integers(0, 4)))
def test_classes_are_counted_as_in_scikit_learns_confusion_matrix(label, decoded):
    """Id 4 is void: not counted in the label, wrong in the reconstruction."""
    confusion_matrix = pytest.importorskip("sklearn.metrics").confusion_matrix
    counts = ClassCounts.of(label, decoded, 4)
    seen = label < 4
    if not seen.any():
        assert counts.mean_iou() is None
        assert counts.accuracy() is None
        return
    matrix = confusion_matrix(label[seen], decoded[seen], labels=range(5))
    union = (matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix))[:4]
    expected = (np.diag(matrix)[:4][union > 0] / union[union > 0]).mean()
    assert counts.mean_iou() == pytest.approx(expected)
    assert counts.accuracy() == pytest.approx(np.diag(matrix).sum() / matrix.sum())


def test_classes_of_many_images_are_counted_together():
    """Two images: one all of class 0 and right, one of class 1 with a pixel of class 0: the mean of IoUs is another."""
    kind = Image(1, "uint8", "classes", classes=2)
    both = ErrorSum(kind)
    zeros, ones = np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)
    spotted = np.array([[0, 1], [1, 1]], np.uint8)
    assert both.add(zeros, zeros) == {"miou": 1, "accuracy": 1}
    assert both.add(ones, spotted) == pytest.approx({"miou": (0 + 3 / 4) / 2, "accuracy": 3 / 4})
    assert both.means() == pytest.approx({"miou": (4 / 5 + 3 / 4) / 2, "accuracy": 7 / 8})


def test_void_is_left_out():
    kind = Image(1, "uint8", "classes", classes=133)
    label = np.array([[5, 255], [133, 7]], np.uint8)
    assert errors(kind, label, np.array([[5, 9], [9, 7]], np.uint8)) == {"miou": 1, "accuracy": 1}
    assert errors(kind, np.full((2, 2), 255, np.uint8), label) == {}


# --- instances --------------------------------------------------------------------------------------------------------


def boxes_with(masks: list[np.ndarray], boxes: list[list[float]]) -> InstanceSet:
    coded = [Mask.from_array(mask) for mask in masks]
    return InstanceSet(np.array(boxes, np.float32).reshape(-1, 4), ["thing"] * len(boxes), masks=coded)


def test_masks_against_masks():
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2], masks[1, 1:3] = True, True
    np.testing.assert_allclose(mask_ious(masks, masks), [[1, 1 / 3], [1 / 3, 1]])
    assert mask_ious(np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4), bool)) == 1


def test_instances_are_paired_by_their_boxes_in_any_order():
    top, left = np.zeros((2, 8, 8), bool)
    top[:4], left[:, :4] = True, True
    kind = Instances(masks=True)
    label = boxes_with([top, left], [[0, 0, 1, 0.5], [0, 0, 0.5, 1]])
    fine = np.zeros((16, 16), bool)
    fine[:8] = True  # the same at twice the size
    decoded = boxes_with([left, fine], [[0, 0, 0.54, 1], [0, 0, 1, 0.5]])
    assert errors(kind, label, label) == {"kept": 1, "mask_iou": 1, "box_error": 0}
    assert errors(kind, label, decoded) == pytest.approx({"kept": 1, "mask_iou": 1, "box_error": 0.04 / 8})


def test_masks_decide_between_equal_boxes():
    top = np.zeros((8, 8), bool)
    top[:4] = True
    label = boxes_with([top, ~top], [[0, 0, 1, 1]] * 2)
    assert errors(Instances(masks=True), label, label.take([1, 0]))["mask_iou"] == 1


def test_instances_that_are_lost_or_made_up():
    full = np.ones((4, 4), bool)
    kind = Instances(masks=True)
    two, one = boxes_with([full, full], [[0, 0, 1, 1], [0, 0, 0.5, 0.5]]), boxes_with([full], [[0, 0, 1, 1]])
    assert errors(kind, two, one) == {"kept": 0.5, "mask_iou": 0.5, "box_error": 0}
    assert errors(kind, one, two) == {"kept": 0.5, "mask_iou": 1, "box_error": 0}
    none = InstanceSet.empty(masks=True)
    assert errors(kind, none, none) == {"kept": 1}
    assert errors(kind, one, none) == {"kept": 0, "mask_iou": 0}
    assert errors(kind, none, one) == {"kept": 0}


def test_what_instances_say_is_compared():
    boxes = np.array([[0, 0, 0.4, 1], [0.5, 0, 1, 1]], np.float32)
    label = InstanceSet(boxes, ["text"] * 2, texts=["No Entry", "way out"])
    decoded = InstanceSet(boxes, ["text"] * 2, texts=["no entry", "way in"])
    assert errors(Instances(texts=True), label, decoded) == {"kept": 1, "box_error": 0, "word_f1": 0.75}


def test_poses_are_compared_joint_by_joint():
    kind = Instances(scores=True, attributes=ATTRIBUTES["smpl"], pose="smpl")
    joints = rotations(46).reshape(2, 23, 3, 3)
    turn = Rotation.from_euler("x", 10, degrees=True).as_matrix().astype(np.float32)

    def people(joints: np.ndarray, order=(0, 1)) -> InstanceSet:
        boxes = np.array([[0, 0, 0.4, 1], [0.5, 0, 1, 1]], np.float32)
        attributes = {"body_pose": joints, "global_orient": rotations(2, 5)}
        return InstanceSet(boxes, ["person"] * 2, attributes=attributes).take(order)

    found = errors(kind, people(joints), people(joints @ turn, (1, 0)))
    assert found == pytest.approx({"kept": 1, "box_error": 0, "joint_angle": 10, "orientation": 0}, abs=1e-3)
    assert errors(kind, people(joints), people(joints))["joint_angle"] == 0


# --- texts and records ------------------------------------------------------------------------------------------------


def test_texts_less_case_and_accents():
    assert errors(Text(), "A café, at Night!", "a cafe , at night !") == {"exact": 1, "word_f1": 1}
    assert errors(Text(), "a cat and a dog", "a dog") == pytest.approx({"exact": 0, "word_f1": 2 * 2 / 7})
    assert errors(Text(), "", "") == {"exact": 1, "word_f1": 1}


@settings(max_examples=40)
@given(st.text(), st.text())
def test_word_f1_is_symmetric_and_1_for_the_same(first, second):
    assert word_f1(first, second) == word_f1(second, first)
    assert 0 <= word_f1(first, second) <= 1
    assert word_f1(first, first) == 1


def test_records_field_by_field():
    kind = Record(("width", "score", "name", "sizes"))
    label = {"width": 100, "score": 0.5, "name": "Élan", "sizes": [[1, 2], [4]]}
    assert errors(kind, label, label) == {"exact": 1, "fields": 1, "numbers": 0}
    decoded = {"width": 110, "score": 0.5000000001, "name": "elan", "sizes": [[1, 2], [3]]}
    numbers = (10 / 110 + 0 + 0 + 0 + 1 / 4) / 5
    assert errors(kind, label, decoded) == pytest.approx({"exact": 0, "fields": 0.5, "numbers": numbers})
    assert errors(kind, label, {"name": "élan"}) == {"exact": 0, "fields": 0.25}
    assert errors(kind, {}, {}) == {"exact": 1}
    assert errors(kind, {}, {"width": 1}) == {"exact": 0}


@given(floats, floats)
def test_relative_difference_is_symmetric(first, second):
    assert relative_difference(first, second) == relative_difference(second, first)
    assert 0 <= relative_difference(first, second) <= 2
    assert relative_difference(first, first) == 0


# --- all kinds --------------------------------------------------------------------------------------------------------


def test_every_figure_has_a_measure():
    label = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    grey = label[..., 0]
    found = [
        errors(Image(3), label, label),
        errors(Image(1, content="intensity"), grey, grey),
        errors(Image(1, "float32", "intensity"), grey.astype(np.float32), grey.astype(np.float32)),
        errors(Image(3, content="normals"), label, label),
        errors(Image(1, content="classes"), grey, grey),
    ]
    assert {name for one in found for name in one} <= set(MEASURES)
    for one in found:
        for name, value in one.items():
            assert value > 0.99 if MEASURES[name].better == "higher" else value < 1e-6, name
    assert errors(Embeddings(4, 3), np.zeros((1, 4), np.float16), None) == {}


def test_means_are_over_the_labels_that_have_the_figure():
    sums = ErrorSum(Instances(masks=True))
    full = np.ones((4, 4), bool)
    one, none = boxes_with([full], [[0, 0, 1, 1]]), InstanceSet.empty(masks=True)
    sums.add(one, one)
    sums.add(none, none)
    sums.add(one, none)
    assert sums.labels == 3
    assert sums.means() == pytest.approx({"kept": 2 / 3, "mask_iou": 1 / 2, "box_error": 0})


def test_values_are_said_with_their_units():
    said = {"psnr": "27.3 dB", "ssim": "0.913", "delta1": "91.2 %", "angle": "4.5°", "box_error": "0.025 %"}
    values = {"psnr": 27.31, "ssim": 0.9126, "delta1": 0.9123, "angle": 4.51, "box_error": 0.00025}
    assert {name: MEASURES[name].say(value) for name, value in values.items()} == said


def test_what_is_no_label_is_named():
    label = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=r"shape \(8, 8, 3\), its label \(4, 4, 3\)"):
        errors(Image(3), label, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(LabelError, match="NaN"):
        errors(Vector(2), np.ones(2, np.float32), np.array([np.nan, 1], np.float32))
