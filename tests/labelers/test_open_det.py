import numpy as np
import pytest
import torch
from tokenloom.labelers.depth import Depth
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.open_det import OpenDet, OpenDetParams

torch.set_num_threads(1)

WORDS = OpenDetParams(labels=("person", "cat", "cup of coffee"), threshold=0.1)


@pytest.fixture(scope="module")
def images(photographs):
    """Whole images of different sizes; one larger than the model's input, which the processor blurs."""
    astronaut, chelsea, coffee, _ = photographs.values()
    large = np.kron(coffee, np.ones((3, 3, 1), np.uint8))
    return [np.ascontiguousarray(image) for image in (astronaut, chelsea[:, :150], large[:, :500])]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(OpenDet.write_tiny(tmp_path_factory.mktemp("open_det") / "tiny"))


@pytest.fixture(scope="module")
def labeler(weights):
    labeler = OpenDet(WORDS, weights)
    labeler.load("cpu")
    return labeler


@pytest.fixture(scope="module")
def labels(labeler, images, batch_of):
    return labeler.label(batch_of(images))["open_det"]


def reference(weights, image, params):
    """The package's own way, one image at a time, the text encoded with it: shares of the image, the best first."""
    from transformers import AutoImageProcessor, AutoModelForZeroShotObjectDetection, AutoTokenizer

    processor = AutoImageProcessor.from_pretrained(weights)
    text = AutoTokenizer.from_pretrained(weights)(
        [f"a photo of a {label}" for label in params.labels], padding="max_length", return_tensors="pt"
    )
    model = AutoModelForZeroShotObjectDetection.from_pretrained(weights).eval()
    with torch.inference_mode():
        outputs = model(**text, **processor(images=image, return_tensors="pt"))
    size = image.shape[:2]
    found = processor.post_process_object_detection(outputs, threshold=params.threshold, target_sizes=[size])[0]
    boxes = found["boxes"].numpy() / [size[1], size[0], size[1], size[0]]
    inside = ((boxes[:, :2] < 1) & (boxes[:, 2:] > 0)).all(axis=1)
    scores = found["scores"].numpy()
    order = [place for place in np.argsort(-scores, kind="stable") if inside[place]]
    names = [params.labels[int(found["labels"][place])] for place in order]
    return boxes[order].clip(0, 1), names, scores[order]


def test_equals_transformers_own_processor_and_model_on_photographs(weights, images, labels):
    """The labels embedded once and the blur in two passes, against everything anew for each image."""
    for image, label in zip(images, labels, strict=True):
        boxes, names, scores = reference(weights, image, WORDS)
        assert list(label.labels) == names
        np.testing.assert_allclose(label.scores, scores, atol=1e-4)
        np.testing.assert_allclose(label.boxes, boxes, atol=1e-3)
    assert min(len(label) for label in labels) > 0
    assert len({name for label in labels for name in label.labels}) > 1


def test_does_not_depend_on_the_batch(labeler, images, labels, batch_of):
    for image, label in zip(images, labels, strict=True):
        alone = labeler.label(batch_of([image]))["open_det"][0]
        assert list(alone.labels) == list(label.labels)
        np.testing.assert_allclose(alone.scores, label.scores, atol=1e-4)


def test_the_labels_asked_for_decide(weights, images, labels, batch_of):
    labeler = OpenDet(OpenDetParams(labels=("rocket",), threshold=0.0, max_instances=5), weights)
    labeler.load("cpu")
    found = labeler.label(batch_of(images[:1]))["open_det"][0]
    assert list(found.labels) == ["rocket"] * 5
    assert not np.allclose(found.scores[:3], labels[0].scores[:3])


def test_nothing_above_the_threshold_is_an_empty_set(weights, images, batch_of):
    labeler = OpenDet(OpenDetParams(threshold=1.0), weights)
    labeler.load("cpu")
    for label in labeler.label(batch_of(images))["open_det"]:
        assert len(labeler.makes[0].kind.check(label)) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 600), (600, 1)])
def test_odd_images_give_valid_labels(labeler, shape, batch_of):
    label = labeler.label(batch_of([np.full((*shape, 3), 128, np.uint8)]))["open_det"][0]
    labeler.makes[0].kind.check(label)


@pytest.mark.parametrize(
    "params", [{"labels": ()}, {"labels": ("a", "a")}, {"labels": ("a", " ")}, {"prompt": "a photo"}]
)
def test_bad_parameters_are_refused(params):
    with pytest.raises(ValueError, match=r"labels|prompt"):
        OpenDetParams(**params)


def test_a_label_longer_than_the_model_reads_is_refused(weights):
    labeler = OpenDet(OpenDetParams(labels=("person", "x" * 80)), weights)
    with pytest.raises(ValueError, match="tokens; the model reads 64 at most"):
        labeler.load("cpu")


def test_other_checkpoints_are_refused(tmp_path):
    depth = Depth.write_tiny(tmp_path / "depth")
    with pytest.raises(CheckpointError, match="DepthAnythingForDepthEstimation, not of an open-vocabulary detector"):
        OpenDet(weights=str(depth))
