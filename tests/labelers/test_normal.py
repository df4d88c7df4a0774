import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenloom.labelers.contract.views import View
from tokenloom.labelers.depth import Depth
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.normal import Normal, NormalParams, to_bytes

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(Normal.write_tiny(tmp_path_factory.mktemp("normal") / "tiny"))


@pytest.fixture(scope="module")
def labeler(weights):
    labeler = Normal(weights=weights)
    labeler.load("cpu")
    return labeler


@pytest.fixture(scope="module")
def labels(labeler, images, batch_of):
    return labeler.label(batch_of(images))["normal"]


def reference(weights, image, size):
    """The package's own way, one image at a time, (height, width, 3), brought back to length 1."""
    from transformers import AutoImageProcessor, AutoModelForNormalEstimation

    processor = AutoImageProcessor.from_pretrained(weights)
    model = AutoModelForNormalEstimation.from_pretrained(weights).eval()
    with torch.inference_mode():
        outputs = model(**processor(images=image, return_tensors="pt"))
        normals = processor.post_process_normal_estimation(outputs, target_sizes=[size])[0]["normals"]
    return torch.nn.functional.normalize(normals, dim=0).permute(1, 2, 0).numpy()


def test_equals_transformers_own_processor_and_model_on_photographs(weights, images, labels):
    """To half a level of the byte."""
    for image, label in zip(images, labels, strict=True):
        expected = (reference(weights, image, image.shape[:2]) + 1) * 127.5
        assert label.dtype == np.uint8
        assert np.abs(label - expected).max() < 0.501
        assert (label.std(axis=(0, 1)) > 5).all()


def test_a_large_image_has_a_map_of_max_side(weights, images, batch_of):
    labeler = Normal(NormalParams(max_side=64), weights)
    labeler.load("cpu")
    labels = labeler.label(batch_of(images))["normal"]
    assert [label.shape for label in labels] == [(64, 64, 3), (64, 43, 3), (29, 64, 3), (64, 64, 3)]
    assert np.abs(labels[2] - (reference(weights, images[2], (29, 64)) + 1) * 127.5).max() < 0.501


def test_does_not_depend_on_the_batch(labeler, images, labels, batch_of):
    for image, label in zip(images, labels, strict=True):
        alone = labeler.label(batch_of([image]))["normal"][0].astype(int)
        assert np.abs(alone - label).max() <= 1
        assert (alone != label).mean() < 1e-3


def test_a_mirrored_view_turns_x(labeler, labels):
    kind = labeler.makes[0].kind
    view = View(0, 0, 0, 224, 224, hflip=False, size=224, image_height=224, image_width=224)
    cut, mirrored = kind.crop(labels[0], view), kind.crop(labels[0], replace(view, hflip=True))
    np.testing.assert_array_equal(mirrored[..., 0], 255 - cut[:, ::-1, 0])
    np.testing.assert_array_equal(mirrored[..., 1:], cut[:, ::-1, 1:])


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5), (2000, 1)])
def test_odd_images_have_normals(labeler, shape, batch_of):
    label = labeler.label(batch_of([np.full((*shape, 3), 200, np.uint8)]))["normal"][0]
    height = min(shape[0], 640)
    assert labeler.makes[0].kind.check(label).shape == (height, shape[1], 3)


def test_vectors_become_bytes():
    vectors = np.array([[[0, 0, 2], [-1, 0, 0], [0.6, 0.8, 0], [0, 0, 0]]], np.float32)
    expected = [[[128, 128, 255], [0, 128, 128], [204, 230, 128], [128, 128, 128]]]
    np.testing.assert_array_equal(to_bytes(vectors), np.array(expected, np.uint8))
    with pytest.raises(ValueError, match="finite"):
        to_bytes(np.full((2, 2, 3), np.inf))


def test_another_labelers_checkpoint_is_refused(tmp_path):
    depth = Depth.write_tiny(tmp_path / "depth")
    with pytest.raises(CheckpointError, match="DepthAnythingForDepthEstimation, not of a normal estimator"):
        Normal(weights=str(depth))


def test_a_checkpoint_of_another_head_is_refused(weights, tmp_path):
    from transformers import Tipsv2DptConfig, Tipsv2DptForDepthEstimation

    shutil.copytree(weights, tmp_path, dirs_exist_ok=True)
    Tipsv2DptForDepthEstimation(Tipsv2DptConfig.from_pretrained(weights)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"decoder\.head"):
        Normal(weights=str(tmp_path)).load("cpu")
