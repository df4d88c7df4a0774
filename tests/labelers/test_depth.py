import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenloom.labelers.contract.views import View
from tokenloom.labelers.depth import Depth, DepthParams
from tokenloom.labelers.det import Det
from tokenloom.labelers.networks import whole_images
from tokenloom.labelers.networks.hub import CheckpointError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(Depth.write_tiny(tmp_path_factory.mktemp("depth") / "tiny"))


@pytest.fixture(scope="module")
def labeler(weights):
    labeler = Depth(weights=weights)
    labeler.load("cpu")
    return labeler


@pytest.fixture(scope="module")
def labels(labeler, images, batch_of):
    return labeler.label(batch_of(images))["depth"]


def reference(weights, image, size, **sizes):
    """The package's own way, one image at a time."""
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    processor = AutoImageProcessor.from_pretrained(weights)
    model = AutoModelForDepthEstimation.from_pretrained(weights).eval()
    with torch.inference_mode():
        outputs = model(**processor(images=image, return_tensors="pt"))
        return processor.post_process_depth_estimation(outputs, target_sizes=[size], **sizes)[0][
            "predicted_depth"
        ].numpy()


def test_equals_transformers_own_processor_and_model_on_photographs(weights, images, labels):
    """To 1e-5 of the largest value: only the size of the batch differs."""
    for image, label in zip(images, labels, strict=True):
        expected = reference(weights, image, image.shape[:2])
        assert label.dtype == np.float32
        assert np.ptp(label) > 0.05 * label.max()
        np.testing.assert_allclose(label, expected, atol=1e-5 * expected.max())


def test_a_large_image_has_a_map_of_max_side(weights, images, batch_of):
    labeler = Depth(DepthParams(max_side=64), weights)
    labeler.load("cpu")
    labels = labeler.label(batch_of(images))["depth"]
    assert [label.shape for label in labels] == [(64, 64), (64, 43), (29, 64), (64, 64)]
    np.testing.assert_allclose(labels[2], reference(weights, images[2], (29, 64)), rtol=1e-5)


def test_does_not_depend_on_the_batch(labeler, images, labels, batch_of):
    for image, label in zip(images, labels, strict=True):
        np.testing.assert_allclose(labeler.label(batch_of([image]))["depth"][0], label, rtol=1e-5)


def test_images_of_one_input_size_run_together_and_none_is_padded(labeler, images, batch_of, monkeypatch):
    seen = []
    run = whole_images.run
    monkeypatch.setattr(whole_images, "run", lambda *args: seen.append(args[1]["pixel_values"].shape) or run(*args))
    labeler.label(batch_of(images))
    assert sorted(seen) == [(1, 3, 126, 280), (1, 3, 182, 126), (2, 3, 126, 126)]


def test_a_mirrored_view_is_the_mirrored_map(labeler, labels):
    kind = labeler.makes[0].kind
    view = View(0, 0, 0, 224, 224, hflip=False, size=224, image_height=224, image_width=224)
    cut = kind.crop(labels[0], view)
    np.testing.assert_array_equal(kind.crop(labels[0], replace(view, hflip=True)), cut[:, ::-1])
    np.testing.assert_allclose(cut, labels[0], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 3), (9, 1)])
def test_tiny_images_have_depth(labeler, shape, batch_of):
    image = np.full((*shape, 3), 200, np.uint8)
    label = labeler.label(batch_of([image]))["depth"][0]
    assert labeler.makes[0].kind.check(label).shape == shape


def test_an_empty_batch_and_a_strip_that_has_no_model_input(labeler, batch_of):
    assert labeler.label(batch_of([]))["depth"] == []
    with pytest.raises(ValueError, match="5000 x 1 pixels is too narrow"):
        labeler.label(batch_of([np.zeros((1, 5000, 3), np.uint8)]))


def unit_of(labeler):
    return labeler.makes[0].kind.describe()["unit"]


def test_the_unit_is_known_before_the_weights_are_loaded(weights, tmp_path):
    def unit(config, **params):
        (tmp_path / "config.json").write_text(json.dumps(config))
        return unit_of(Depth(DepthParams(**params), str(tmp_path)))

    assert unit_of(Depth()) == "relative inverse"
    assert unit_of(Depth(weights=weights)) == "relative inverse"
    assert unit({"model_type": "depth_anything", "depth_estimation_type": "metric"}) == "metre"
    assert unit({"model_type": "depth_anything"}) == "relative inverse"
    assert unit({"model_type": "zoedepth"}) == "metre"
    assert unit({"model_type": "dpt"}) == "relative inverse"
    assert unit({"model_type": "dpt"}, unit="metre") == "metre"
    with pytest.raises(CheckpointError, match="BertModel, not of a depth estimator"):
        unit({"model_type": "bert", "architectures": ["BertModel"]})


def test_zoedepth_has_its_own_padding_cut_off(tmp_path, images, batch_of):
    from transformers import ZoeDepthConfig, ZoeDepthForDepthEstimation, ZoeDepthImageProcessor

    torch.manual_seed(0)
    backbone = {
        "model_type": "beit",
        "image_size": 64,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "out_indices": [1, 2, 3, 4],
        "reshape_hidden_states": False,
        "use_relative_position_bias": True,
    }
    config = ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        bottleneck_features=8,
        num_relative_features=8,
        bin_embedding_dim=8,
        num_attractors=[4, 2, 2, 1],
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
        num_patch_transformer_layers=1,
        patch_transformer_hidden_size=16,
        patch_transformer_intermediate_size=16,
        patch_transformer_num_attention_heads=2,
    )
    ZoeDepthForDepthEstimation(config).save_pretrained(tmp_path)
    ZoeDepthImageProcessor(size={"height": 64, "width": 64}, keep_aspect_ratio=False).save_pretrained(tmp_path)
    labeler = Depth(weights=str(tmp_path))
    labeler.load("cpu")
    assert unit_of(labeler) == "metre"
    labels = labeler.label(batch_of(images[:3]))["depth"]
    for image, label in zip(images, labels, strict=False):
        size = image.shape[:2]
        np.testing.assert_allclose(
            label, reference(str(tmp_path), image, size, source_sizes=[size]), rtol=1e-4, atol=1e-5
        )


def copy_of(folder, to):
    shutil.copytree(folder, to)
    return to


def test_broken_checkpoints_are_refused(weights, tmp_path):
    lacking = copy_of(weights, tmp_path / "lacking")
    (lacking / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json"):
        Depth(weights=str(lacking)).load("cpu")
    cut = copy_of(weights, tmp_path / "cut")
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match="cut short"):
        Depth(weights=str(cut)).load("cpu")


def test_another_labelers_checkpoint_is_refused(weights, tmp_path):
    detector = Det.write_tiny(tmp_path / "det")
    with pytest.raises(CheckpointError, match="RTDetrV2ForObjectDetection, not of a depth estimator"):
        Depth(weights=str(detector))
    with pytest.raises(CheckpointError, match="DepthAnythingForDepthEstimation, not of an object detector"):
        Det(weights=weights)


def test_licences_of_other_checkpoints():
    weights = Depth.weights
    assert weights is not None
    assert weights.licence_of("depth-anything/Depth-Anything-V2-Large-hf") == "CC-BY-NC-4.0"
    assert weights.licence_of("depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf") == "Apache-2.0"
    assert weights.licence_of("apple/DepthPro-hf") == "apple-amlr"
    assert weights.licence_of("someone/else") == "unknown"
