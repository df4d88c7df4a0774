import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.labelers.dinov2 import Dinov2
from tokenloom.labelers.foreground import Foreground, ForegroundParams, draw_mask, find_objects

KIND = Foreground.makes[0].kind


@pytest.fixture(scope="module")
def labels(dinov2_weights, photographs, batch_of):
    views = np.stack(list(photographs.values()))
    dinov2 = Dinov2(weights=dinov2_weights)
    dinov2.load("cpu")
    maps = dinov2.label(batch_of(views))["dinov2"]
    labels = Foreground().label(batch_of(views, dinov2=maps))["foreground"]
    return dict(zip(photographs, labels, strict=True))


def world(*objects, size=16, noise=0.05, seed=0):
    """A feature map on which each object (rows, columns) has its own direction, and so has the ground."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    features = np.tile(directions[0][:, None, None], (1, size, size))
    for direction, (rows, columns) in zip(directions[1:], objects, strict=False):
        features[:, rows, columns] = direction[:, None, None]
    return (features + noise * rng.normal(size=features.shape)).astype(np.float16)


def test_masks_cover_the_things_in_photographs(labels):
    """Checked by eye once; the boxes, in pixels of the view, are drawn by hand around the thing itself."""
    things = {"rocket": (105, 60, 125, 222), "coffee": (40, 5, 180, 160)}
    for name, (x0, y0, x1, y1) in things.items():
        mask = labels[name].masks[0].to_array()
        assert mask[y0:y1, x0:x1].sum() / mask.sum() > 0.6, name
    cat = labels["chelsea"].masks[0].to_array()
    assert cat[60:180, 20:180].mean() > 0.95


def test_labels_are_of_their_kind_with_tight_boxes_and_apart_from_each_other(labels):
    for label in labels.values():
        KIND.check(label)
        assert 1 <= len(label) <= 3
        masks = np.stack([mask.to_array() for mask in label.masks])
        assert masks.shape[1:] == (224, 224)
        assert (masks.sum(axis=0) <= 1).all()
        for mask, (x0, y0, x1, y1) in zip(masks, label.boxes, strict=True):
            rows, columns = np.nonzero(mask)
            np.testing.assert_allclose(
                [x0, y0, x1, y1],
                np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 224,
                atol=1e-6,
            )


@settings(max_examples=15, deadline=None)
@given(
    top=st.integers(1, 9),
    left=st.integers(1, 9),
    height=st.integers(2, 6),
    width=st.integers(2, 6),
    seed=st.integers(0, 1000),
)
def test_an_object_of_its_own_features_is_found_exactly(top, left, height, width, seed):
    rows, columns = slice(top, top + height), slice(left, left + width)
    found = find_objects(world((rows, columns), seed=seed), ForegroundParams())
    expected = np.zeros((16, 16), bool)
    expected[rows, columns] = True
    assert len(found) == 1
    assert (found[0].component == expected).all()
    assert found[0].score > 0.7


def test_two_objects_are_found_one_after_the_other_and_never_more_than_wanted():
    left, right = (slice(3, 9), slice(2, 7)), (slice(8, 12), slice(10, 14))
    both = find_objects(world(left, right), ForegroundParams())
    expected = {tuple(map(str, area)): area for area in (left, right)}
    assert len(both) == 2
    for cut in both:
        assert any(
            cut.component[area].all() and cut.component.sum() == cut.component[area].size for area in expected.values()
        )
    assert len(find_objects(world(left, right), ForegroundParams(max_instances=1))) == 1


def test_of_two_areas_the_one_with_the_corners_is_the_ground():
    large = (slice(1, 15), slice(1, 15))
    (cut,) = find_objects(world(large), ForegroundParams())
    assert cut.component[8, 8]
    assert not cut.component[0, 0]


@pytest.mark.parametrize("features", [np.ones((8, 16, 16)), np.zeros((8, 16, 16)), np.eye(256).reshape(256, 16, 16)])
def test_a_view_without_parts_has_no_objects(features, batch_of):
    image = np.zeros((224, 224, 3), np.uint8)
    (label,) = Foreground().label(batch_of(image[None], dinov2=[features.astype(np.float16)]))["foreground"]
    assert len(KIND.check(label)) == 0
    assert label.masks == []


def test_the_masks_edge_is_drawn_to_the_images_edge():
    """The object ends 5 pixels beyond the patch border: the mask follows the image, not the patches."""
    image = np.full((224, 224, 3), 30, np.uint8)
    image[56:145, 56:145] = 200
    (cut,) = find_objects(world((slice(4, 10), slice(4, 10))), ForegroundParams())
    mask = draw_mask(cut, image)
    thing = image[..., 0] > 100
    assert (mask & thing).sum() / (mask | thing).sum() > 0.95


def test_the_same_cut_whatever_the_features_scale():
    features = world((slice(3, 9), slice(2, 7)))
    one, two = (find_objects(f, ForegroundParams())[0].component for f in (features, features * np.float16(0.25)))
    assert (one == two).all()
