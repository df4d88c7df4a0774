"""Averages of labels, kind by kind."""

from __future__ import annotations

import numpy as np
from tokenloom.labelers.contract.kinds import FeatureMap, Image, Instances, Record, Text, Vector
from tokenloom.training.prompt.average import average, can_be_averaged


def test_numbers_are_their_mean():
    kind = Image(1, "uint16", "intensity")
    made = average(kind, [np.array([[0, 65535]], np.uint16), np.array([[3, 65535]], np.uint16)])
    np.testing.assert_array_equal(made, np.array([[2, 65535]], np.uint16))
    assert made.dtype == np.uint16
    for kind, shape, dtype in ((FeatureMap(2, 1, 1), (2, 1, 1), "float16"), (Vector(2), (2,), "float32")):
        made = average(kind, [np.full(shape, value, dtype) for value in (1, 2, 6)])
        np.testing.assert_array_equal(kind.check(made), np.full(shape, 3, dtype))


def test_normals_are_unit_vectors_of_their_mean_direction():
    flat, steep = np.array([0.0, 0.0, 1.0]), np.array([0.8, 0.0, 0.6])
    want = (flat + steep) / np.linalg.norm(flat + steep)
    kind = Image(3, "float32", "normals")
    made = average(kind, [one.astype(np.float32)[None, None] for one in (flat, steep)])
    np.testing.assert_allclose(made[0, 0], want, atol=1e-6)
    bytes_of = [np.rint((one + 1) / 2 * 255).astype(np.uint8)[None, None] for one in (flat, steep)]
    made = average(Image(3, "uint8", "normals"), bytes_of)
    np.testing.assert_allclose(made[0, 0] / 255 * 2 - 1, want, atol=2 / 255)


def test_classes_are_what_most_say_and_of_equals_the_lowest():
    draws = [[[7, 2, 9]], [[7, 2, 3]], [[1, 5, 3]], [[1, 5, 9]]]
    made = average(Image(1, "uint8", "classes", classes=10), [np.array(one, np.uint8) for one in draws])
    np.testing.assert_array_equal(made, np.array([[1, 2, 3]], np.uint8))


def test_texts_and_things_have_no_average():
    assert not any(can_be_averaged(kind) for kind in (Text(), Record(("a",)), Instances()))
