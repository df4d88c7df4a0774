import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenloom.labelers.contract.views import View
from tokenloom.labelers.det import Det
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.semseg_coco import CLASSES, SemsegCoco, SemsegCocoParams

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(SemsegCoco.write_tiny(tmp_path_factory.mktemp("semseg") / "tiny"))


@pytest.fixture(scope="module")
def labeler(weights):
    labeler = SemsegCoco(weights=weights)
    labeler.load("cpu")
    return labeler


@pytest.fixture(scope="module")
def labels(labeler, images, batch_of):
    return labeler.label(batch_of(images))["semseg_coco"]


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory):
    """A Mask2Former with a small Swin, of 133 classes."""
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
    )

    folder = tmp_path_factory.mktemp("mask2former")
    backbone = {
        "model_type": "swin",
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=10,
        id2label={index: f"class {index}" for index in range(CLASSES)},
    )
    torch.manual_seed(0)
    model = Mask2FormerForUniversalSegmentation(config)
    torch.nn.init.normal_(model.class_predictor.weight, std=3)
    model.save_pretrained(folder)
    Mask2FormerImageProcessor(size={"shortest_edge": 96, "longest_edge": 160}).save_pretrained(folder)
    return str(folder)


def package(weights):
    from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation

    processor = AutoImageProcessor.from_pretrained(weights)
    return processor, AutoModelForUniversalSegmentation.from_pretrained(weights).eval()


def same(label, expected):
    """Alike but for a thousandth of the pixels, whose two best classes score the same to the last digits."""
    assert label.dtype == np.uint8
    assert label.shape == expected.shape
    assert (label != expected).mean() < 1e-3


@pytest.mark.slow
def test_mask2former_equals_transformers_own_on_photographs(mask2former, images, batch_of):
    labeler = SemsegCoco(SemsegCocoParams(max_side=160), mask2former)
    labeler.load("cpu")
    labels = labeler.label(batch_of(images))["semseg_coco"]
    processor, model = package(mask2former)
    sizes = [(160, 160), (160, 107), (71, 160), (160, 160)]
    for image, size, label in zip(images, sizes, labels, strict=True):
        with torch.inference_mode():
            outputs = model(**processor(images=image, return_tensors="pt"))
        same(label, processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0].numpy())
    assert len(np.unique(np.concatenate([label.ravel() for label in labels]))) > 2


def test_eomt_equals_transformers_own_on_photographs(weights, images, labels):
    """The package's semantic post-processing forgets that its processor pads: its own `unpad_image` cuts that off."""
    processor, model = package(weights)
    for image, label in zip(images, labels, strict=True):
        size = image.shape[:2]
        with torch.inference_mode():
            outputs = model(**{"pixel_values": processor(images=image, return_tensors="pt")["pixel_values"]})
        if size[0] == size[1]:
            expected = processor.post_process_semantic_segmentation(outputs, target_sizes=[size])[0]
        else:
            result = processor.post_process_semantic_segmentation(
                outputs, target_sizes=[(128, 128)], return_segmentation_scores=True
            )
            scores = processor.unpad_image(result[0].segmentation_scores[None], [size], processor.size)[0]
            expected = scores.argmax(dim=0)
        same(label, expected.numpy())
        assert len(np.unique(label)) >= 3


def test_padding_leaves_no_trace(labeler, photographs, batch_of):
    """The left half of an image is labelled from its own pixels: nothing of the black square beside it is seen."""
    image = photographs["coffee"]
    tall = np.ascontiguousarray(image[:, :112])
    label = labeler.label(batch_of([tall]))["semseg_coco"][0]
    assert label.shape == (224, 112)
    processor, model = package(labeler.weights_path)
    with torch.inference_mode():
        outputs = model(pixel_values=processor(images=tall, return_tensors="pt")["pixel_values"])
    squashed = processor.post_process_semantic_segmentation(outputs, target_sizes=[(224, 112)])[0].numpy()
    assert (squashed != label).mean() > 0.01  # what would come out with the padding left in


def test_does_not_depend_on_the_batch(labeler, images, labels, batch_of):
    for image, label in zip(images, labels, strict=True):
        same(labeler.label(batch_of([image]))["semseg_coco"][0], label)


def test_a_mirrored_view_is_the_mirrored_map(labeler, labels):
    kind = labeler.makes[0].kind
    view = View(0, 0, 0, 224, 224, hflip=True, size=224, image_height=224, image_width=224)
    np.testing.assert_array_equal(kind.crop(labels[0], view), labels[0][:, ::-1])
    np.testing.assert_array_equal(kind.crop(labels[0], replace(view, hflip=False)), labels[0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 5)])
def test_tiny_images_have_classes(labeler, shape, batch_of):
    label = labeler.label(batch_of([np.full((*shape, 3), 200, np.uint8)]))["semseg_coco"][0]
    assert labeler.makes[0].kind.check(label).shape == shape
    assert label.max() < CLASSES


def test_other_classes_and_other_checkpoints_are_refused(weights, tmp_path):
    detector = Det.write_tiny(tmp_path / "det")
    with pytest.raises(CheckpointError, match="RTDetrV2ForObjectDetection, not of a segmenter"):
        SemsegCoco(weights=str(detector))
    config = {"model_type": "mask2former", "id2label": {str(index): "x" for index in range(150)}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="of 150 classes; semseg_coco needs COCO's 133"):
        SemsegCoco(weights=str(tmp_path))


def test_a_processor_that_cuts_windows_is_refused(weights, tmp_path):
    from transformers import EomtImageProcessor

    folder = tmp_path / "windows"
    shutil.copytree(weights, folder)
    EomtImageProcessor(size={"shortest_edge": 128, "longest_edge": None}, do_split_image=True).save_pretrained(folder)
    with pytest.raises(CheckpointError, match="do_split_image"):
        SemsegCoco(weights=str(folder)).load("cpu")
