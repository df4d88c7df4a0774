import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenloom.labelers.dinov2 import Dinov2
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.siglip import Siglip

CPU = "cpu"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(Siglip.write_tiny(tmp_path_factory.mktemp("siglip")))


@pytest.fixture(scope="module")
def naflex_weights(tmp_path_factory):
    """A tiny SigLIP 2 for images of any shape, trained on 5 x 5 patches."""
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Model

    folder = tmp_path_factory.mktemp("siglip2-naflex")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = Siglip2Config(
        vision_config={**sizes, "num_patches": 25, "patch_size": 16},
        text_config={**sizes, "vocab_size": 64, "max_position_embeddings": 8},
    )
    Siglip2Model(config).save_pretrained(folder)
    Siglip2ImageProcessor(max_num_patches=25).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def views(photographs):
    return np.stack(list(photographs.values()))


def assert_equals_the_package(weights, views, batch):
    """The whole model of transformers, both towers, and its own processor, one picture at a time."""
    from transformers import AutoImageProcessor, AutoModel

    labeler = Siglip(weights=weights)
    labeler.load(CPU)
    labels = labeler.label(batch)
    model: Any = AutoModel.from_pretrained(weights).eval()
    processor: Any = AutoImageProcessor.from_pretrained(weights)
    for index, view in enumerate(views):
        with torch.inference_mode():
            output = model.vision_model(**processor(view, return_tensors="pt"))
        tokens = output.last_hidden_state[0].numpy()
        found = labels["siglip"][index].astype(np.float32)
        np.testing.assert_allclose(found.reshape(len(found), -1).T, tokens, rtol=1e-3, atol=2e-3)
        np.testing.assert_allclose(labels["siglip_global"][index], output.pooler_output[0], rtol=1e-5, atol=1e-5)
    assert np.ptp(np.stack(labels["siglip_global"]), axis=0).max() > 1e-3  # they aren't all the same


def test_shapes_are_known_before_the_weights_are_loaded(weights, naflex_weights):
    assert [modality.kind.describe() for modality in Siglip().makes] == [
        {"kind": "feature_map", "channels": 768, "height": 14, "width": 14},
        {"kind": "vector", "dim": 768},
    ]
    assert Siglip(weights=weights).makes[1].kind.describe() == {"kind": "vector", "dim": 32}
    naflex = Siglip(weights=naflex_weights).makes[0].kind.describe()
    assert naflex == {"kind": "feature_map", "channels": 32, "height": 5, "width": 5}


def test_equals_transformers_own_processor_and_model_on_photographs(weights, naflex_weights, views, batch_of):
    assert_equals_the_package(weights, views, batch_of(views))
    assert_equals_the_package(naflex_weights, views, batch_of(views))


def test_a_scaled_view_equals_transformers_own_processor_and_model(weights, views, batch_of):
    large = np.stack([np.asarray(Image.fromarray(view).resize((300, 300))) for view in views])
    assert_equals_the_package(weights, large, batch_of(large))


def test_labels_alone_and_in_a_batch(naflex_weights, views, batch_of):
    labeler = Siglip(weights=naflex_weights)
    labeler.load(CPU)
    together, alone = labeler.label(batch_of(views)), labeler.label(batch_of(views[2:3]))
    np.testing.assert_allclose(together["siglip"][2], alone["siglip"][0], atol=2e-3)
    np.testing.assert_allclose(together["siglip_global"][2], alone["siglip_global"][0], atol=1e-5)


def test_only_the_vision_tower_is_loaded(weights, capfd):
    labeler = Siglip(weights=weights)
    labeler.load(CPU)
    names = set(labeler._model.state_dict())
    file = load_file(Path(weights) / "model.safetensors")
    vision = {name.removeprefix("vision_model.") for name in file if name.startswith("vision_model.")}
    assert names == vision
    assert len(vision) < len(file)
    assert "UNEXPECTED" not in capfd.readouterr().err  # nor is the user told of the other tower


def test_a_vision_tower_alone_is_a_checkpoint_too(weights, views, tmp_path, batch_of):
    from transformers import SiglipVisionModel

    SiglipVisionModel.from_pretrained(weights).save_pretrained(tmp_path)
    shutil.copy(Path(weights) / "preprocessor_config.json", tmp_path)
    whole, tower = Siglip(weights=weights), Siglip(weights=str(tmp_path))
    for labeler in (whole, tower):
        labeler.load(CPU)
    expected, found = (np.stack(labeler.label(batch_of(views))["siglip_global"]) for labeler in (whole, tower))
    np.testing.assert_array_equal(found, expected)


def test_wrong_checkpoints_are_refused(weights, tmp_path):
    with pytest.raises(CheckpointError, match="a checkpoint of 'dinov2', not SigLIP's"):
        Siglip(weights=str(Dinov2.write_tiny(tmp_path)))
    folder = Path(shutil.copytree(weights, tmp_path / "short"))
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["vision_model.head.probe"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"head\.probe"):
        Siglip(weights=str(folder)).load(CPU)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="isn't whole"):
        Siglip(weights=str(folder)).load(CPU)
    file.unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"safetensors|pickled"):
        Siglip(weights=str(folder)).load(CPU)


def test_a_tower_without_pooling_is_refused(weights, tmp_path):
    folder = Path(shutil.copytree(weights, tmp_path / "headless"))
    config = (folder / "config.json").read_text().replace('"vision_use_head": true', '"vision_use_head": false')
    assert "false" in config
    (folder / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match="a checkpoint without pooling"):
        Siglip(weights=str(folder))
