import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from tokenloom.labelers.contract.instances import InstanceSet
from tokenloom.labelers.contract.kinds import Instances, kind_from
from tokenloom.labelers.contract.poses import (
    ATTRIBUTES,
    COCO17_PAIRS,
    SMPL_PAIRS,
    SMPL_PARENTS,
    mirror_rotations,
    rotations_from_6d,
    swapped,
)
from tokenloom.labelers.contract.views import View
from tokenloom.labelers.people.crops import full_camera, in_pixels, squares

SMPL = Instances(scores=True, attributes=ATTRIBUTES["smpl"], pose="smpl")
COCO = Instances(attributes=ATTRIBUTES["coco17"], pose="coco17")
WHOLE = View(0, 0, 0, 300, 400, False, 224, 300, 400)
MIRRORED = replace(WHOLE, hflip=True)
seeds = st.integers(0, 2**32 - 1)


def rotations(rng, *shape):
    count = int(np.prod(shape))
    return Rotation.from_quat(rng.normal(size=(count, 4))).as_matrix().reshape(*shape, 3, 3).astype(np.float32)


def some_smpl(seed, count=3):
    """People of random poses in boxes that lie within an image of 300 x 400."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 0.6, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.05, 0.4, (count, 2))], axis=1).astype(np.float32)
    pred_cam = rng.uniform([0.5, -0.3, -0.3], [1.2, 0.3, 0.3], (count, 3)).astype(np.float32)
    attributes = {
        "global_orient": rotations(rng, count),
        "body_pose": rotations(rng, count, 23),
        "betas": rng.normal(size=(count, 10)).astype(np.float32),
        "pred_cam": pred_cam,
        "camera": camera_of(pred_cam, boxes, 300, 400),
    }
    return InstanceSet(boxes, ["human"] * count, rng.random(count).astype(np.float32), attributes=attributes)


def camera_of(pred_cam, boxes, height, width):
    centres, sides = squares(in_pixels(boxes, height, width))
    return full_camera(pred_cam, centres, sides, height, width).astype(np.float32)


def some_keypoints(seed, count=3):
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform([-0.2, -0.2, 0], [1.2, 1.2, 1], (count, 17, 3)).astype(np.float32)
    boxes = np.tile(np.array([0.2, 0.2, 0.8, 0.8], np.float32), (count, 1))
    return InstanceSet(boxes, ["person"] * count, attributes={"keypoints": keypoints})


def assert_close(one, other, tolerance=1e-5):
    np.testing.assert_allclose(one.boxes, other.boxes, atol=tolerance)
    for name, values in one.attributes.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, other.attributes[name], atol=tolerance, rtol=tolerance, err_msg=name)


def joints(global_orient, body_pose, camera, bones):
    """Where SMPL's joints are, (24, 3), for bones (24, 3): each joint's place in its parent's frame, at rest."""
    turned, places = [global_orient], [camera]
    for joint in range(1, 24):
        parent = SMPL_PARENTS[joint]
        turned.append(turned[parent] @ body_pose[joint - 1])
        places.append(places[parent] + turned[parent] @ bones[joint])
    return np.stack(places)


def symmetric_bones(rng):
    """Of a body whose right side mirrors its left."""
    bones = rng.normal(size=(24, 3))
    middle = np.setdiff1d(np.arange(24), np.array(SMPL_PAIRS))
    bones[middle, 0] = 0
    for left, right in SMPL_PAIRS:
        bones[right] = bones[left] * [-1, 1, 1]
    return bones


@given(seeds)
def test_a_mirrored_body_has_its_joints_where_the_mirror_shows_them(seed):
    person = some_smpl(seed, 1)
    bones = symmetric_bones(np.random.default_rng(seed))
    before, after = (
        joints(label["global_orient"][0], label["body_pose"][0], label["camera"][0], bones)
        for label in (person.attributes, SMPL.crop(person, MIRRORED).attributes)
    )
    mirrored = (before * [-1, 1, 1])[swapped(24, SMPL_PAIRS)]
    np.testing.assert_allclose(after, mirrored, atol=1e-4, rtol=1e-5)


@given(seeds)
def test_mirrored_twice_is_as_before(seed):
    for kind, label in ((SMPL, some_smpl(seed)), (COCO, some_keypoints(seed))):
        once = kind.check(kind.crop(label, MIRRORED))
        assert_close(kind.crop(once, MIRRORED), label)
        assert_close(kind.crop(label, WHOLE), label)


@given(seeds)
def test_a_mirrored_rotation_is_a_rotation(seed):
    mirrored = mirror_rotations(rotations(np.random.default_rng(seed), 4))
    np.testing.assert_allclose(mirrored @ mirrored.transpose(0, 2, 1), np.tile(np.eye(3), (4, 1, 1)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(mirrored), 1, atol=1e-5)


def test_a_mirror_swaps_the_sides():
    person = some_smpl(0, 1)
    body = person.attributes["body_pose"][0]
    mirrored = SMPL.crop(person, MIRRORED).attributes["body_pose"][0]
    left_knee, right_knee = 4 - 1, 5 - 1
    np.testing.assert_array_equal(mirrored[left_knee], mirror_rotations(body[right_knee]))
    keypoints = np.zeros((1, 17, 3), np.float32)
    keypoints[0, 9] = [0.1, 0.4, 0.9]  # the left wrist
    label = InstanceSet(np.array([[0, 0, 1, 1]], np.float32), ["person"], attributes={"keypoints": keypoints})
    np.testing.assert_allclose(COCO.crop(label, MIRRORED).attributes["keypoints"][0, 10], [0.9, 0.4, 0.9])


def test_pairs_are_of_the_same_depth_in_the_skeleton():
    for left, right in SMPL_PAIRS:
        parents = SMPL_PARENTS[left], SMPL_PARENTS[right]
        assert parents in SMPL_PAIRS or parents[0] == parents[1]
    assert sorted(place for pair in COCO17_PAIRS for place in pair) == list(range(1, 17))


@given(seeds, st.integers(0, 100), st.integers(0, 150), st.integers(30, 200), st.integers(30, 250), st.booleans())
def test_a_crops_camera_is_that_of_the_crop_as_an_image(seed, top, left, height, width, hflip):
    """Restating the camera equals converting `pred_cam` anew, by the box's place in the crop."""
    view = View(1, top, left, height, width, hflip, 224, 300, 400)
    label = some_smpl(seed)
    pixels = in_pixels(label.boxes, 300, 400)
    centres, sides = squares(pixels)
    centres = centres - [left, top]
    pred_cam = label.attributes["pred_cam"].copy()
    if hflip:
        centres[:, 0] = width - centres[:, 0]
        pred_cam[:, 1] *= -1
    everyone = replace(label, boxes=np.tile(np.array([0, 0, 1, 1], np.float32), (3, 1)))  # nobody is cropped away
    seen = SMPL.crop(everyone, view).attributes
    np.testing.assert_allclose(
        seen["camera"], full_camera(pred_cam, centres, sides, height, width), rtol=2e-4, atol=1e-3
    )
    np.testing.assert_array_equal(seen["pred_cam"], pred_cam)
    np.testing.assert_array_equal(seen["betas"], label.attributes["betas"])


@given(seeds, st.integers(0, 100), st.integers(0, 150), st.integers(30, 200), st.integers(30, 250))
def test_keypoints_stay_on_their_pixels(seed, top, left, height, width):
    label = some_keypoints(seed)
    seen = COCO.crop(label, View(1, top, left, height, width, False, 224, 300, 400))
    in_image = label.attributes["keypoints"][..., :2] * [400, 300]
    places = seen.attributes["keypoints"]
    if len(seen):
        np.testing.assert_allclose(places[..., :2] * [width, height] + [left, top], in_image, atol=1e-2)
        np.testing.assert_array_equal(places[..., 2], label.attributes["keypoints"][..., 2])


def test_people_outside_a_crop_are_left_out_with_their_poses():
    label = replace(
        some_smpl(1), boxes=np.array([[0, 0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9], [0, 0.8, 0.1, 1]], np.float32)
    )
    view = View(1, 120, 160, 180, 240, False, 224, 300, 400)
    seen = SMPL.check(SMPL.crop(label, view))
    np.testing.assert_array_equal(seen.attributes["body_pose"], label.attributes["body_pose"][1:2])
    nobody = SMPL.crop(label.take([]), MIRRORED)
    assert SMPL.check(nobody) == InstanceSet.empty(scores=True, attributes=ATTRIBUTES["smpl"])


@given(seeds)
def test_six_numbers_of_a_rotation_are_its_first_two_columns(seed):
    rng = np.random.default_rng(seed)
    expected = rotations(rng, 5)
    numbers = np.concatenate([expected[..., 0], expected[..., 1]], axis=-1)
    stretched = numbers * rng.uniform(0.5, 2, (5, 1)).astype(np.float32)
    stretched[:, 3:] += 0.7 * stretched[:, :3]  # what Gram and Schmidt take away
    np.testing.assert_allclose(rotations_from_6d(stretched), expected, atol=1e-5)


def test_six_zeros_are_finite():
    assert np.isfinite(rotations_from_6d(np.zeros((2, 6), np.float32))).all()


def test_the_pose_is_part_of_the_spec():
    assert kind_from(json.loads(json.dumps(SMPL.describe()))) == SMPL
    assert kind_from({"kind": "instances", "scores": True}) == Instances(scores=True)  # as written without poses
    with pytest.raises(ValueError, match="coco17 needs the attributes"):
        Instances(attributes={"keypoints": (133, 3)}, pose="coco17")
    further = Instances(attributes={**ATTRIBUTES["coco17"], "height": ()}, pose="coco17")
    label = some_keypoints(0)
    label = replace(label, attributes={**label.attributes, "height": np.ones(3, np.float32)})
    assert further.check(further.crop(label, MIRRORED)).attributes["height"].tolist() == [1, 1, 1]
