import cv2
import numpy as np
import pytest
import torch
from tokenloom.labelers.canny_edge import CannyEdgeParams
from tokenloom.labelers.contract import drawing
from tokenloom.labelers.contract.instances import InstanceSet, Mask
from tokenloom.labelers.sam.mask_generator import Bands, Canvas, Found
from tokenloom.labelers.sam.models import scaling
from tokenloom.labelers.sam_edge import SamEdge, instance_map
from tokenloom.labelers.sam_instance import SamInstance
from tokenloom.labelers.sam_soft_edge import (
    SamSoftEdge,
    SamSoftEdgeParams,
    edges_of,
    outer_boundary,
    sobel,
    thinned,
)

CPU = "cpu"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(SamInstance.write_tiny(tmp_path_factory.mktemp("sam")))


@pytest.fixture(scope="module")
def photograph():
    return np.ascontiguousarray(pytest.importorskip("skimage.data").coffee()[:, 150:450])


@pytest.fixture(scope="module")
def instances(weights, photograph, batch_of):
    labeler = SamInstance(weights=weights)
    labeler.load(CPU)
    return labeler.label(batch_of([photograph]))["sam_instance"][0]


def instance_set(*masks):
    count = len(masks)
    return InstanceSet(
        np.tile(np.array([0, 0, 1, 1], np.float32), (count, 1)),
        ["object"] * count,
        scores=np.ones(count, np.float32),
        masks=[Mask.from_array(mask) for mask in masks],
        attributes={"stability": np.ones(count, np.float32), "point": np.zeros((count, 2), np.float32)},
    )


def rectangle(height, width, top, left, bottom, right):
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def edges(instances, image, batch_of, **params):
    return SamEdge(CannyEdgeParams(**params)).label(batch_of([image], sam_instance=[instances]))["sam_edge"][0]


# --- Canny on the instance map ----------------------------------------------------------------------------------------


def test_smaller_masks_lie_over_larger_ones_in_colours_of_their_own():
    small, large = rectangle(40, 60, 10, 10, 20, 20), rectangle(40, 60, 5, 5, 35, 50)
    drawn = instance_map(instance_set(small, large), 40, 60)
    assert {tuple(colour) for colour in drawn[small]} != {tuple(colour) for colour in drawn[large & ~small]}
    assert len({tuple(colour) for colour in drawn.reshape(-1, 3)}) == 3
    assert not drawn[~large].any()
    assert np.array_equal(drawn, instance_map(instance_set(large, small), 40, 60))


def test_neighbours_differ_and_no_instance_is_black_however_many_there_are():
    stripes = [rectangle(4, 600, 0, 3 * start, 4, 3 * start + 3) for start in range(200)]
    drawn = instance_map(instance_set(*stripes), 4, 600)[0, 1::3].astype(int)
    assert len(np.unique(drawn, axis=0)) == 200
    assert drawn.min() >= 64
    assert np.abs(np.diff(drawn, axis=0)).max(axis=1).min() >= 48


def test_edges_do_not_depend_on_how_instances_are_shown(instances, photograph, batch_of, monkeypatch):
    expected = edges(instances, photograph, batch_of)
    monkeypatch.setattr(drawing, "class_colours", lambda ids: np.zeros((*ids.shape, 3), np.uint8))
    assert np.array_equal(edges(instances, photograph, batch_of), expected)


def test_edges_are_cannys_on_that_map(instances, photograph, batch_of):
    found = edges(instances, photograph, batch_of)
    assert np.array_equal(found, cv2.Canny(instance_map(instances, *photograph.shape[:2]), 100, 200))
    assert SamEdge.makes[0].kind.check(found) is found
    assert 0.005 < (found > 0).mean() < 0.2
    assert (edges(instances, photograph, batch_of, low=600, high=900) > 0).sum() < (found > 0).sum()


def test_an_edge_runs_along_a_masks_border(batch_of):
    image = np.zeros((40, 60, 3), np.uint8)
    found = edges(instance_set(rectangle(40, 60, 0, 0, 40, 30)), image, batch_of)
    rows, columns = np.nonzero(found)
    assert set(columns) <= {29, 30}  # at the image's own border there is no edge
    assert len(set(rows)) >= 38


def test_the_edges_of_a_mirrored_label_are_the_mirrored_edges(instances, photograph, batch_of):
    """But for a pixel to the side, where Canny chooses between two equally high ones, and 3 % that lie at corners."""
    mirrored = instance_set(*(mask.to_array()[:, ::-1] for mask in instances.masks))
    one = edges(mirrored, photograph[:, ::-1], batch_of)[:, ::-1]
    other = edges(instances, photograph, batch_of)
    for first, second in ((one, other), (other, one)):
        near = cv2.dilate(second, np.ones((3, 3), np.uint8)) > 0
        assert near[first > 0].mean() > 0.97


@pytest.mark.parametrize("count", [0, 1, 300])
def test_any_number_of_instances(batch_of, count):
    image = np.zeros((90, 120, 3), np.uint8)
    masks = [
        rectangle(90, 120, 5 * (index // 20), 6 * (index % 20), 5 * (index // 20) + 4, 6 * (index % 20) + 5)
        for index in range(count)
    ]
    found = edges(instance_set(*masks), image, batch_of)
    assert found.shape == (90, 120)
    assert found.any() == (count > 0)


def test_an_image_of_one_pixel(batch_of):
    image = np.zeros((1, 1, 3), np.uint8)
    assert edges(instance_set(np.ones((1, 1), bool)), image, batch_of).tolist() == [[0]]


# --- from mask probabilities ------------------------------------------------------------------------------------------


def test_sobel_is_opencvs():
    maps = torch.rand(2, 20, 30, generator=torch.Generator().manual_seed(0))
    right, down = sobel(maps)
    for place, image in enumerate(maps.numpy()):
        for ours, order in ((right, (1, 0)), (down, (0, 1))):
            expected = cv2.Sobel(image, cv2.CV_32F, *order, ksize=3, borderType=cv2.BORDER_REPLICATE)
            np.testing.assert_allclose(ours[place], expected, atol=1e-5)


def test_the_outer_boundary_is_scikit_images():
    segmentation = pytest.importorskip("skimage.segmentation")
    masks = torch.from_numpy(np.random.default_rng(0).random((3, 25, 35)) < 0.3)
    for mask, boundary in zip(masks.numpy(), outer_boundary(masks).numpy(), strict=True):
        expected = segmentation.find_boundaries(mask, connectivity=2, mode="outer", background=0)
        assert np.array_equal(boundary, expected & ~mask)


@pytest.mark.parametrize("turn", range(8))
def test_a_ridge_in_any_direction_is_thinned_to_one_pixel(turn):
    y, x = np.mgrid[:81, :81] - 40.0
    angle = turn * np.pi / 8
    across = x * np.cos(angle) + y * np.sin(angle)
    ridge = np.exp(-((across - 0.1) ** 2) / 8).astype(np.float32)
    ones = np.ones_like(ridge)
    thin = thinned(ridge, np.cos(angle) * ones, np.sin(angle) * ones)
    inner = np.hypot(x, y) < 30
    assert np.abs(across[(thin > 0) & inner]).max() <= 1.2
    assert 55 <= ((thin > 0) & inner).sum() <= 100
    assert set(thin[thin > 0]) <= set(ridge[thin > 0])


def found_masks(logits, height, width):
    side = logits.shape[1]
    rows, columns = (Bands.of(scaling(side, side, side, size, CPU)) for size in (height, width))
    count = len(logits)
    zeros = torch.zeros(count)
    points, boxes = torch.zeros(count, 2), torch.zeros(count, 4)
    return Found(zeros, zeros, boxes, points, logits, (0, 0, width, height), Canvas(rows, columns))


def test_a_surer_edge_is_brighter():
    """Two half planes: the one with the steeper probabilities has the edges of 255."""
    x = torch.arange(64) - 31.5
    steep, shallow = (slope * x for slope in (4.0, 0.4))
    logits = torch.stack([steep.expand(64, 64), shallow.view(-1, 1).expand(64, 64)])
    found = edges_of(found_masks(logits, 64, 64))
    away = np.abs(np.arange(64) - 31.5) > 6
    assert found[away].max() == 255
    assert np.abs(np.nonzero(found[away].max(axis=0) == 255)[0] - 31.5).max() <= 1
    assert 0 < found[:, away].max() < 128
    assert np.abs(np.nonzero(found[:, away].max(axis=1))[0] - 31.5).max() <= 1


def test_no_masks_and_masks_without_a_boundary_have_no_edges():
    assert not edges_of(found_masks(torch.zeros(0, 8, 8), 20, 30)).any()
    assert not edges_of(found_masks(torch.full((2, 8, 8), 9.0), 20, 30)).any()


def test_soft_edges_of_a_photograph(weights, photograph, batch_of):
    labeler = SamSoftEdge(SamSoftEdgeParams(points_per_side=6), weights)
    labeler.load(CPU)
    small = np.ascontiguousarray(photograph[::4, ::4])
    alone, together = (labeler.label(batch_of(images)) for images in ([photograph], [small, photograph]))
    (found,) = alone["sam_soft_edge"]
    assert np.array_equal(found, together["sam_soft_edge"][1])
    labeler.makes[0].kind.check(found)
    assert found.max() == 255
    assert 0.001 < (found > 0).mean() < 0.3
