import shutil

import numpy as np
import pytest
import torch
from tokenloom.labelers.contract.views import View
from tokenloom.labelers.det import Det, DetParams, to_instances
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.open_det import OpenDet
from tokenloom.labelers.semseg_coco import SemsegCoco

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(Det.write_tiny(tmp_path_factory.mktemp("det") / "tiny"))


@pytest.fixture(scope="module")
def labeler(weights):
    labeler = Det(weights=weights)
    labeler.load("cpu")
    return labeler


@pytest.fixture(scope="module")
def labels(labeler, images, batch_of):
    return labeler.label(batch_of(images))["det"]


@pytest.fixture(scope="module")
def detr(tmp_path_factory):
    """A DETR, whose processor pads the images of a batch against each other."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor

    folder = tmp_path_factory.mktemp("detr")
    config = DetrConfig(
        backbone_config={
            "model_type": "resnet",
            "embedding_size": 8,
            "hidden_sizes": [8, 8, 8, 8],
            "depths": [1, 1, 1, 1],
            "layer_type": "basic",
            "out_features": ["stage4"],
        },
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=10,
        id2label={0: "person", 1: "cat", 2: "cup"},
    )
    torch.manual_seed(0)
    model = DetrForObjectDetection(config)
    torch.nn.init.normal_(model.class_labels_classifier.weight, std=2)
    model.save_pretrained(folder)
    DetrImageProcessor(size={"shortest_edge": 96, "longest_edge": 160}).save_pretrained(folder)
    return str(folder)


def reference(weights, image, threshold):
    """The package's own way, one image at a time: boxes in pixels, labels, scores, the best first."""
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    processor = AutoImageProcessor.from_pretrained(weights)
    model = AutoModelForObjectDetection.from_pretrained(weights).eval()
    with torch.inference_mode():
        outputs = model(**processor(images=image, return_tensors="pt"))
        found = processor.post_process_object_detection(outputs, threshold=threshold, target_sizes=[image.shape[:2]])[0]
    order = np.argsort(-found["scores"].numpy(), kind="stable")
    names = [model.config.id2label[int(label)] for label in found["labels"]]
    return found["boxes"].numpy()[order], [names[place] for place in order], found["scores"].numpy()[order]


def assert_equal(label, expected, image):
    boxes, names, scores = expected
    height, width = image.shape[:2]
    assert list(label.labels) == names
    np.testing.assert_allclose(label.scores, scores, atol=1e-5)
    pixels = boxes.clip(0, [width, height, width, height])
    np.testing.assert_allclose(label.boxes * [width, height, width, height], pixels, atol=1e-3 * max(height, width))


@pytest.mark.slow
def test_equals_transformers_own_processor_and_model_on_photographs(weights, images, labels):
    for image, label in zip(images, labels, strict=True):
        assert_equal(label, reference(weights, image, 0.6), image)
        assert (np.diff(label.scores) <= 0).all()
    assert sum(len(label) for label in labels) > 8


def test_the_tiny_weights_find_people(labels):
    assert sum("person" in label.labels for label in labels) >= 2
    assert len({name for label in labels for name in label.labels}) >= 2


@pytest.mark.slow
def test_a_processor_that_pads_changes_nothing(detr, images, batch_of):
    labeler = Det(DetParams(threshold=0.4), detr)
    labeler.load("cpu")
    labels = labeler.label(batch_of(images))["det"]
    for image, label in zip(images, labels, strict=True):
        assert_equal(label, reference(detr, image, 0.4), image)
    assert sum(len(label) for label in labels) > 4


def test_does_not_depend_on_the_batch(labeler, images, labels, batch_of):
    for image, label in zip(images, labels, strict=True):
        alone = labeler.label(batch_of([image]))["det"][0]
        assert list(alone.labels) == list(label.labels)
        np.testing.assert_allclose(alone.boxes, label.boxes, atol=1e-4)


@pytest.mark.slow
def test_threshold_and_number_are_kept(weights, images, batch_of):
    few = Det(DetParams(threshold=0, max_instances=3), weights)
    none = Det(DetParams(threshold=1.0), weights)
    for labeler in (few, none):
        labeler.load("cpu")
    label = few.label(batch_of(images[:1]))["det"][0]
    assert len(label) == 3
    np.testing.assert_allclose(label.scores, reference(weights, images[0], 0)[2][:3], atol=1e-5)
    for label in none.label(batch_of(images))["det"]:
        assert len(none.makes[0].kind.check(label)) == 0


def test_a_mirrored_view_mirrors_the_boxes(labeler, labels):
    view = View(0, 0, 0, 224, 224, hflip=True, size=224, image_height=224, image_width=224)
    mirrored = labeler.makes[0].kind.crop(labels[0], view)
    seen = (labels[0].boxes[:, 2:] > labels[0].boxes[:, :2]).all(axis=1)
    expected = labels[0].boxes[seen][:, [2, 1, 0, 3]]
    expected[:, [0, 2]] = 1 - expected[:, [0, 2]]
    np.testing.assert_allclose(mirrored.boxes, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 5)])
def test_odd_images_give_valid_labels(labeler, shape, batch_of):
    label = labeler.label(batch_of([np.full((*shape, 3), 128, np.uint8)]))["det"][0]
    labeler.makes[0].kind.check(label)


@pytest.mark.parametrize("count", [0, 300])
def test_results_become_instances(count):
    """Boxes in pixels of a 200 x 100 image; some stick out, one in ten lies beside it."""
    rng = np.random.default_rng(count)
    corners = rng.uniform(-20, [220, 120], (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 50, (count, 2))], axis=1).astype(np.float32)
    boxes[::10, [0, 2]] = 201, 230
    result = {
        "boxes": torch.from_numpy(boxes),
        "labels": torch.from_numpy(rng.integers(0, 3, count)),
        "scores": torch.from_numpy(rng.random(count).astype(np.float32)),
    }
    label = to_instances(result, (100, 200), {0: "a", 1: "b", 2: "c"}, max_instances=1000)
    assert Det().makes[0].kind.check(label) is label
    overlaps = (boxes[:, 0] < 200) & (boxes[:, 1] < 100) & (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    assert len(label) == overlaps.sum()
    assert label.scores is not None
    assert (np.diff(label.scores) <= 0).all()
    if count:
        best = np.flatnonzero(overlaps)[result["scores"].numpy()[overlaps].argmax()]
        np.testing.assert_allclose(label.boxes[0], (boxes[best] / [200, 100, 200, 100]).clip(0, 1), atol=1e-6)
        assert label.labels[0] == "abc"[int(result["labels"][best])]


def test_other_checkpoints_are_refused(weights, tmp_path):
    segmenter = SemsegCoco.write_tiny(tmp_path / "semseg")
    with pytest.raises(CheckpointError, match="EomtForUniversalSegmentation, not of an object detector"):
        Det(weights=str(segmenter))
    words = OpenDet.write_tiny(tmp_path / "words")
    with pytest.raises(CheckpointError, match=r"owlv2 must be told by words .* open_det"):
        Det(weights=str(words))


def test_broken_checkpoints_are_refused(weights, tmp_path):
    lacking = tmp_path / "lacking"
    shutil.copytree(weights, lacking)
    (lacking / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        Det(weights=str(lacking)).load("cpu")
    cut = tmp_path / "cut"
    shutil.copytree(weights, cut)
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="cut short"):
        Det(weights=str(cut)).load("cpu")
