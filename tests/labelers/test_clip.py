import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenloom.labelers.clip import CONFIG_FILE, WEIGHTS_FILES, Clip, ClipParams
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.siglip import Siglip

open_clip: Any = pytest.importorskip("open_clip")

CPU = "cpu"
WEIGHTS_FILE = WEIGHTS_FILES[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(Clip.write_tiny(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def views(photographs):
    return np.stack(list(photographs.values()))


def labels_of(labeler, batch):
    labeler.load(CPU)
    labels = labeler.label(batch)
    return [np.stack(labels[name]).astype(np.float32) for name in ("clip", "clip_global")]


@pytest.fixture(scope="module")
def labels(weights, views, batch_of):
    return labels_of(Clip(weights=weights), batch_of(views))


def reference(model, transform, views):
    """open_clip's own transform and model, one picture at a time: projected patch tokens and `encode_image`."""
    maps, pooled = [], []
    for view in views:
        pixels = transform(Image.fromarray(view))[None]
        with torch.inference_mode():
            middle = model.visual.forward_intermediates(pixels, normalize_intermediates=True, output_fmt="NLC")
            tokens = middle["image_intermediates"][-1][0] @ model.visual.proj
            pooled.append(model.encode_image(pixels)[0].numpy())
        grid = int(len(tokens) ** 0.5)
        maps.append(tokens.T.reshape(-1, grid, grid).numpy())
    return np.stack(maps), np.stack(pooled)


def assert_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-3, atol=1e-3)  # stored as float16
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-5, atol=1e-5)


def test_shapes_are_known_before_the_weights_are_loaded(weights):
    assert [modality.kind.describe() for modality in Clip().makes] == [
        {"kind": "feature_map", "channels": 512, "height": 14, "width": 14},
        {"kind": "vector", "dim": 512},
    ]
    assert Clip(weights=weights).makes[0].kind.describe()["channels"] == 24


def test_equals_open_clips_own_transform_and_model_on_photographs(weights, views, labels):
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{weights}")
    assert_same(labels, reference(model.eval(), transform, views))


def test_equals_transformers_clip_with_the_same_weights(weights, views, labels):
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=128, projection_dim=24, num_hidden_layers=2, num_attention_heads=2,
        image_size=224, patch_size=16, hidden_act="quick_gelu",
    )  # fmt: skip
    model: Any = CLIPVisionModelWithProjection(config).eval()
    model.load_state_dict(transformers_names(load_file(Path(weights) / WEIGHTS_FILE)))
    processor = CLIPImageProcessor()
    with torch.inference_mode():
        output = model(**processor(list(views), return_tensors="pt"))
        patches = model.visual_projection(model.vision_model.post_layernorm(output.last_hidden_state[:, 1:]))
    maps = patches.transpose(1, 2).reshape(len(views), 24, 14, 14)
    assert_same(labels, (maps.numpy(), output.image_embeds.numpy()))


def transformers_names(tensors):
    """The vision tower of open_clip's state dict by the names of transformers, queries, keys and values apart."""
    named = {
        "visual_projection.weight": tensors["visual.proj"].T.contiguous(),
        "vision_model.embeddings.class_embedding": tensors["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": tensors["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": tensors["visual.positional_embedding"],
    }
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    parts["attn.out_proj"] = "self_attn.out_proj"
    for end in ("weight", "bias"):
        for ours, theirs in {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}.items():
            named[f"vision_model.{theirs}.{end}"] = tensors[f"visual.{ours}.{end}"]
        for layer in range(2):
            block, to = f"visual.transformer.resblocks.{layer}", f"vision_model.encoder.layers.{layer}"
            for ours, theirs in parts.items():
                named[f"{to}.{theirs}.{end}"] = tensors[f"{block}.{ours}.{end}"]
            for name, part in zip("qkv", tensors[f"{block}.attn.in_proj_{end}"].chunk(3), strict=True):
                named[f"{to}.self_attn.{name}_proj.{end}"] = part.contiguous()
    return named


def test_a_larger_view_is_scaled_as_open_clip_does(weights, views, batch_of):
    large = np.stack([np.asarray(Image.fromarray(view).resize((336, 336))) for view in views])
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{weights}")
    maps, pooled = labels_of(Clip(weights=weights), batch_of(large))
    expected_maps, expected_pooled = reference(model.eval(), transform, large)
    np.testing.assert_allclose(maps, expected_maps, atol=2e-2)  # Pillow and torchvision differ by a grey level
    np.testing.assert_allclose(pooled, expected_pooled, atol=2e-2)


def test_labels_alone_and_in_a_batch(weights, views, labels, batch_of):
    labeler = Clip(weights=weights)
    for index in range(len(views)):
        assert_same(
            labels_of(labeler, batch_of(views[index : index + 1])), [part[index : index + 1] for part in labels]
        )


def copy_of(weights: str, to: Path) -> Path:
    return Path(shutil.copytree(weights, to))


def test_activation_mean_and_std_are_the_configs(weights, views, labels, tmp_path, batch_of):
    folder = copy_of(weights, tmp_path / "gelu")
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["model_cfg"]["quick_gelu"] = False
    config["preprocess_cfg"] = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    found = labels_of(Clip(weights=str(folder)), batch_of(views))
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    assert_same(found, reference(model.eval(), transform, views))
    assert np.abs(found[1] - labels[1]).max() > 1e-2


# --- bare files -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def openai_model():
    """A model of OpenAI's make: its heads are 64 wide, its weights half precision, its activation QuickGELU."""
    torch.manual_seed(0)
    vision = {"image_size": 48, "patch_size": 16, "width": 64, "layers": 2}
    text = {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}
    return open_clip.CLIP(16, vision, text, quick_gelu=True).half().eval()


def openai_state(model):
    numbers = {"input_resolution": 48, "context_length": 8, "vocab_size": 64}
    return {**model.state_dict(), **{name: torch.tensor(number) for name, number in numbers.items()}}


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_openais_state_dict_is_told_by_its_shapes(openai_model, views, tmp_path, batch_of, suffix):
    state, file = openai_state(openai_model), tmp_path / f"clip.{suffix}"
    torch.save(state, file) if suffix == "pt" else save_file(state, file)
    labeler = Clip(weights=str(file))
    assert labeler.makes[0].kind.describe() == {"kind": "feature_map", "channels": 16, "height": 3, "width": 3}
    model = open_clip.model.build_model_from_openai_state_dict(openai_state(openai_model)).float()
    transform = open_clip.image_transform(48, is_train=False)
    small = np.stack([np.asarray(Image.fromarray(view).resize((48, 48))) for view in views])
    assert_same(labels_of(labeler, batch_of(small)), reference(model, transform, small))


def test_other_state_dicts_need_the_models_name(weights, views, labels, tmp_path, monkeypatch, batch_of):
    file = str(tmp_path / "state.safetensors")
    shutil.copy(Path(weights) / WEIGHTS_FILE, file)
    with pytest.raises(CheckpointError, match="name its architecture with the parameter `model`"):
        Clip(weights=file)
    with pytest.raises(CheckpointError, match="open_clip knows no model 'ViT-Z'"):
        Clip(ClipParams(model="ViT-Z"), file)
    config = json.loads((Path(weights) / CONFIG_FILE).read_text())["model_cfg"]
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", config)
    assert_same(labels_of(Clip(ClipParams(model="tiny"), file), batch_of(views)), labels)
    with pytest.raises(CheckpointError, match=r"tensors don't fit VisionTransformer: it lacks transformer\.resblocks"):
        Clip(ClipParams(model="ViT-B-32"), file).load(CPU)
    with pytest.raises(CheckpointError, match="leave out the parameter `model`"):
        Clip(ClipParams(model="tiny"), weights)


class Code:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_programs_are_refused_and_not_run(openai_model, tmp_path, monkeypatch, views, batch_of):
    monkeypatch.chdir(tmp_path)
    torch.save({**openai_state(openai_model), "code": Code()}, "evil.pt")
    with pytest.raises(CheckpointError, match=r"evil\.pt: holds more than tensors \(posix\.mkdir\)"):
        Clip(weights="evil.pt")
    assert not Path("ran").exists()

    class Archive(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = torch.nn.Linear(2, 2)

        def forward(self, x):
            return self.visual(x)

    torch.jit.script(Archive()).save("ViT-B-16.pt")
    for params in (ClipParams(), ClipParams(model="ViT-B-16")):
        with pytest.raises(CheckpointError, match=r"TorchScript archive.*torch\.jit\.load\('ViT-B-16\.pt'\)"):
            Clip(params, "ViT-B-16.pt").load(CPU)


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_lacks_a_tensor_or_is_cut_short_is_refused(weights, tmp_path):
    folder = copy_of(weights, tmp_path / "short")
    tensors = load_file(folder / WEIGHTS_FILE)
    del tensors["visual.ln_post.weight"]
    save_file(tensors, folder / WEIGHTS_FILE)
    with pytest.raises(CheckpointError, match=r"it lacks ln_post\.weight"):
        Clip(weights=str(folder)).load(CPU)
    whole = (Path(weights) / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="isn't a whole checkpoint"):
        Clip(weights=str(folder)).load(CPU)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"neither open_clip_model\.safetensors nor"):
        Clip(weights=str(folder)).load(CPU)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no open_clip_config\.json in this folder"):
        Clip(weights=str(Siglip.write_tiny(tmp_path)))
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"has no visual\.conv1\.weight or visual\.proj"):
        Clip(weights=str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "isn't a config of open_clip"),
        ("[]", "isn't a config of open_clip"),
        ('{"model_cfg": {"embed_dim": 8}}', "isn't a config of open_clip"),
        ({"timm_model_name": "vit_base_patch16_siglip_224"}, r"plain vision transformer .*\(timm_model_name\)"),
        ({"layers": [3, 4, 6, 3]}, r"\(a ResNet\)"),
        ({"pool_type": "avg"}, r"\(pool_type avg\)"),
        ({"image_size": [224, 112]}, r"\(its input isn't a square\)"),
    ],
)
def test_configs_that_cant_be_used_are_named(tmp_path, text, message):
    if isinstance(text, dict):
        text = json.dumps({"model_cfg": {"embed_dim": 8, "vision_cfg": text}})
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=message):
        Clip(weights=str(tmp_path))


def test_an_unreachable_hub_says_to_give_a_folder(monkeypatch):
    import huggingface_hub

    def offline(*_, **__):
        raise OSError("We couldn't connect")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    for load in (lambda: Clip(weights="laion/CLIP-ViT-H-14-laion2B-s32B-b79K"), lambda: Clip().load(CPU)):
        with pytest.raises(CheckpointError, match=r"couldn't connect.*give `weights` the path of a folder"):
            load()
