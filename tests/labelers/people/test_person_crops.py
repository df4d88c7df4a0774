import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenloom.labelers.contract.instances import InstanceSet
from tokenloom.labelers.people.crops import crop_square, full_camera, in_pixels, people, sample_grid, squares

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def golden(shared):
    """What 4D-Humans' own code made; see the README there."""
    return dict(np.load(shared / "golden" / "hmr2" / "crop_io.npz"))


def things(labels, scores, boxes=None):
    boxes = np.tile(np.array([0.1, 0.1, 0.5, 0.9], np.float32), (len(labels), 1)) if boxes is None else boxes
    return InstanceSet(boxes, labels, np.array(scores, np.float32))


@pytest.mark.parametrize("which", ["", "big_"], ids=["small", "blurred"])
def test_crops_equal_the_references(golden, which):
    """Beyond what a grey level makes: 0.0175 after normalising."""
    image = golden[f"{which}image_bgr"][..., ::-1]
    centres, sides = squares(golden[f"{which}boxes"].astype(np.float64))
    np.testing.assert_allclose(centres, golden[f"{which}box_center"], rtol=1e-6)
    np.testing.assert_allclose(sides, golden[f"{which}box_size"], rtol=1e-6)
    for centre, side, expected in zip(centres, sides, golden[f"{which}img"], strict=True):
        crop = ((crop_square(image, centre, side) / 255 - MEAN) / STD).transpose(2, 0, 1)
        apart = np.abs(crop - expected)
        assert apart.mean() <= 0.01
        assert apart.max() <= 0.15


def test_large_people_are_blurred_before_they_are_scaled_down():
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    centre, step = np.array([600.0, 600.0]), 1200 / 256
    plain = sample_grid(noise, (0, 0), (step, step), (256, 256))
    assert crop_square(noise, centre, 1200).std() < 0.7 * plain.std()
    few = sample_grid(noise, (0, 0), (2.2, 2.2), (256, 256))
    np.testing.assert_array_equal(crop_square(noise, centre - 600 + 1.1 * 256, 2.2 * 256), few)


def test_cameras_equal_the_references(golden):
    """The reference takes the focal length of its batch's largest image; here it is each image's own."""
    columns = (golden[f"cam_{name}"] for name in ("pred", "box_center", "box_size", "img_size", "full"))
    for pred, centre, size, (width, height), expected in zip(*columns, strict=True):
        camera = full_camera(pred[None], centre[None], size[None], height, width)[0]
        own_focal = 5000 / 256 * max(width, height)
        np.testing.assert_allclose(camera * [1, 1, golden["cam_focal"] / own_focal], expected, rtol=1e-5)


@given(st.integers(0, 2**32 - 1), st.floats(0, 4))
def test_a_part_of_the_image_is_sampled_as_the_whole_is(seed, sigma):
    """Only what the grid can see is blurred and warped; black is what lies outside of the image, not of that part."""
    import cv2

    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (120, 150, 3), dtype=np.uint8)
    sigma = sigma if sigma > 0.05 else 0.0
    origin, step = rng.uniform(-20, 100, 2), rng.uniform(0.2, 2, 2)
    found = sample_grid(image, tuple(origin), tuple(step), (20, 30), sigma)
    whole = image.astype(np.float64) if sigma else image
    if sigma:
        from skimage.filters import gaussian

        whole = gaussian(whole, sigma=sigma, channel_axis=2, preserve_range=True)
    matrix = np.array([[step[0], 0, origin[0]], [0, step[1], origin[1]]])
    expected = cv2.warpAffine(whole, matrix, (30, 20), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    np.testing.assert_allclose(found.astype(np.float64), expected, atol=1 if not sigma else 0.2)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (300, 40000)])
def test_crops_of_odd_images(shape):
    image = np.full((*shape, 3), 200, np.uint8)
    boxes = in_pixels(np.array([[0, 0, 1, 1], [0.49, 0, 0.5, 1]], np.float32), *shape)
    boxes = boxes[boxes[:, 2] <= 20_000]  # OpenCV warps no more than 32,766 pixels of a row
    for centre, side in zip(*squares(boxes), strict=True):
        crop = crop_square(image, centre, side)
        assert crop.shape == (256, 256, 3)
        assert np.isfinite(crop).all()
        assert crop.max() <= 200


def test_people_are_the_likeliest_persons():
    seen = people(things(["person", "dog", "person", "person", "person"], [0.6, 0.99, 0.5, 0.9, 0.6]), 0.5, 20)
    assert seen.to_json()["scores"] == pytest.approx([0.9, 0.6, 0.6])
    assert len(people(things(["person"] * 300, np.linspace(0.6, 1, 300)), 0.5, 20)) == 20
    assert len(people(things([], []), 0.5, 20)) == 0
    assert len(people(InstanceSet.empty(scores=True), 0.5, 20)) == 0


def test_boxes_without_an_area_are_nobody():
    boxes = np.array([[0.1, 0.1, 0.1, 0.9], [0.2, 0.3, 0.4, 0.3], [0.1, 0.1, 0.2, 0.2]], np.float32)
    assert len(people(things(["person"] * 3, [0.9] * 3, boxes), 0.5, 20)) == 1


def test_a_wide_box_grows_in_height():
    centres, sides = squares(np.array([[0, 0, 300, 100], [0, 0, 100, 300.0]]))
    np.testing.assert_allclose(centres, [[150, 50], [50, 150]])
    np.testing.assert_allclose(sides, [400, 300])
