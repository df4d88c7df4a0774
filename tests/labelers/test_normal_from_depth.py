import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tokenloom.labelers.contract.kinds import Image
from tokenloom.labelers.contract.views import View
from tokenloom.labelers.normal_from_depth import NormalFromDepth, NormalFromDepthParams, normals_of, to_distance

OTHER: dict[str, Any] = {"metre": "relative inverse", "relative inverse": "metre"}
METRIC = NormalFromDepthParams(depth="metre")


def rays(height, width, field_of_view=55.0):
    """Where each pixel looks: (height, width, 3), x right, y up, z towards the viewer, one unit along the axis."""
    focal = max(height, width) / 2 / math.tan(math.radians(field_of_view) / 2)
    y, x = np.mgrid[0:height, 0:width]
    return np.stack(
        [(x + 0.5 - width / 2) / focal, -(y + 0.5 - height / 2) / focal, np.full((height, width), -1.0)], axis=-1
    )


def plane(normal, height, width, through=(0.0, 0.0, -5.0)):
    """Depth of the plane with this normal through this point; the ray hits it at t with n . (t r) = n . p."""
    return (np.dot(normal, through) / (rays(height, width) @ np.asarray(normal))).astype(np.float32)


def degrees_between(one, other):
    return np.degrees(np.arccos(np.clip((one * other).sum(axis=-1), -1, 1)))


def decoded(label):
    vectors = label.astype(np.float64) / 127.5 - 1
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@given(st.floats(-30, 30), st.floats(-30, 30), st.integers(2, 40), st.integers(2, 40))
def test_a_plane_has_its_normal_everywhere(tilt, turn, height, width):
    a, b = math.radians(tilt), math.radians(turn)
    normal = np.array([math.sin(b) * math.cos(a), math.sin(a), math.cos(b) * math.cos(a)])
    found = normals_of(plane(normal, height, width).astype(np.float64), 55.0)
    assert degrees_between(found, normal).max() < 0.1


def test_a_sphere_shows_its_normals():
    """|t r - c| = radius, the nearer of the two hits."""
    directions = rays(200, 260)
    centre, radius = np.array([0.3, -0.2, -5.0]), 1.2
    a, b, c = (directions**2).sum(-1), directions @ centre, centre @ centre - radius**2
    inside = b**2 - a * c
    hit = inside > 0.15 * a  # away from the outline, where a pixel covers much of the surface
    depth = np.where(inside > 0, (b - np.sqrt(np.maximum(inside, 0))) / a, 20.0)
    found = normals_of(depth, 55.0)
    expected = (depth[..., None] * directions - centre) / radius
    assert hit.sum() > 2000
    assert degrees_between(found, expected)[hit].max() < 2


def test_a_floor_is_green_and_a_wall_blue(batch_of):
    labeler = NormalFromDepth(METRIC)
    images = [np.zeros((60, 80, 3), np.uint8)] * 3
    wall = np.full((60, 80), 3, np.float32)
    floor = np.where(rays(60, 80)[..., 1] < -0.05, 1 / np.maximum(-rays(60, 80)[..., 1], 0.05), 20).astype(np.float32)
    left = plane((math.sin(1), 0, math.cos(1)), 60, 80)  # a wall on the left, which faces to the right
    labels = labeler.label(batch_of(images, depth=[wall, floor, left]))["normal"]
    assert labels[0].dtype == np.uint8
    assert (np.abs(labels[0].astype(int) - (128, 128, 255)) <= 1).all()
    assert (np.abs(labels[1][50:].astype(int) - (128, 255, 128)) <= 1).all()
    assert labels[2][..., 0].min() > 200
    assert labeler.makes[0].kind.check(labels[0]) is labels[0]


@given(arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(0, 50, width=32)))
def test_any_depth_gives_unit_normals_that_face_the_camera(depth):
    for distance in (depth.astype(np.float64), to_distance(depth.astype(np.float64), 10)):
        normals = normals_of(distance, 55.0)
        assert normals.shape == (*depth.shape, 3)
        np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-6)
        assert ((normals * rays(*depth.shape)).sum(axis=-1) <= 1e-6).all()


@given(arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(0.125, 50)))
def test_mirrored_depth_gives_the_mirrored_normals_with_x_turned(depth):
    expected = normals_of(depth, 55.0)[:, ::-1] * (-1, 1, 1)
    np.testing.assert_array_equal(normals_of(np.ascontiguousarray(depth[:, ::-1]), 55.0), expected)


def test_label_then_flip_is_flip_then_label(batch_of):
    """Through the kind's own crop. A byte has no zero: an x of exactly 0 is 128 in both, and 127 when mirrored."""
    rng = np.random.default_rng(0)
    depth = (3 + rng.random((24, 24)).cumsum(axis=1) * 0.1 + rng.random((24, 24)) * 0.02).astype(np.float32)
    labeler = NormalFromDepth(METRIC)
    image = np.zeros((24, 24, 3), np.uint8)
    label, flipped = labeler.label(batch_of([image, image], depth=[depth, np.ascontiguousarray(depth[:, ::-1])]))[
        "normal"
    ]
    view = View(1, 0, 0, 24, 24, hflip=True, size=24, image_height=24, image_width=24)
    np.testing.assert_array_equal(labeler.makes[0].kind.crop(label, view), flipped)
    assert not np.array_equal(label[:, ::-1], flipped)


@given(
    arrays(np.float64, (4, 5), elements=st.floats(0, 100)),
    st.floats(0.5, 8),
    st.floats(-50, 50),
    st.sampled_from([2.0, 10.0, 100.0]),
)
def test_relative_depth_counts_up_to_scale_and_shift(inverse, scale, shift, reach):
    if np.ptp(inverse) < 1:
        return
    distance = to_distance(inverse, reach)
    assert distance.flat[inverse.argmax()] == pytest.approx(1)
    assert distance.flat[inverse.argmin()] == pytest.approx(reach)
    np.testing.assert_allclose(to_distance(inverse * scale + shift, reach), distance, rtol=1e-6)


def test_relative_depth_is_nearer_where_it_is_larger(batch_of):
    """A ramp that rises to the right comes nearer there: the surface faces left."""
    ramp = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (30, 1))
    image = np.zeros((30, 40, 3), np.uint8)
    inverse, metric = (
        NormalFromDepth(NormalFromDepthParams(depth=unit)).label(batch_of([image], depth=[ramp + 1]))["normal"][0]
        for unit in ("relative inverse", "metre")
    )
    assert (inverse[..., 0] < 100).all()
    assert (metric[:, 20:, 0] > 150).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2)])
def test_the_smallest_maps_face_the_viewer_where_flat(shape, batch_of):
    image = np.zeros((*shape, 3), np.uint8)
    label = NormalFromDepth().label(batch_of([image], depth=[np.full(shape, 0.5, np.float32)]))["normal"][0]
    assert label.shape == (*shape, 3)
    assert (np.abs(decoded(label) - (0, 0, 1)) < 0.01).all()


def test_depth_that_is_not_finite_is_refused(batch_of):
    depth = np.full((4, 4), np.nan, np.float32)
    with pytest.raises(ValueError, match="finite"):
        NormalFromDepth(METRIC).label(batch_of([np.zeros((4, 4, 3), np.uint8)], depth=[depth]))


@pytest.mark.parametrize("unit", ["metre", "relative inverse"])
def test_depth_in_another_unit_is_refused(unit):
    fitting, other = (NormalFromDepth(NormalFromDepthParams(depth=one)) for one in (unit, OTHER[unit]))
    depth = Image(1, "float32", "intensity", unit=unit)
    fitting.check_needs({"depth": depth})
    with pytest.raises(ValueError, match=rf"write `params: \{{depth: {unit}\}}`"):
        other.check_needs({"depth": depth})
    other.check_needs({"depth": replace(depth, unit=None)})  # nobody knows
