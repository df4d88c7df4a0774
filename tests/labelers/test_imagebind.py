import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenloom.labelers.imagebind import DEFAULT_WEIGHTS, STEM, ImageBind, ImageBindParams
from tokenloom.labelers.networks.hub import CheckpointError
from torch.nn.functional import conv3d, gelu, layer_norm, linear, multi_head_attention_forward, normalize

CPU = "cpu"
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(ImageBind.write_tiny(tmp_path_factory.mktemp("imagebind")))


@pytest.fixture(scope="module")
def views(photographs):
    return np.stack(list(photographs.values()))


@pytest.fixture(scope="module")
def labels(weights, views, batch_of):
    return labels_of(ImageBind(weights=weights), batch_of(views))


def labels_of(labeler, batch):
    labeler.load(CPU)
    labels = labeler.label(batch)
    return [np.stack(labels[name]).astype(np.float32) for name in ("imagebind", "imagebind_global")]


# --- equality ---------------------------------------------------------------------------------------------------------


def test_equals_the_reference_on_its_golden_data(shared):
    folder = shared / "golden/imagebind_vision"
    heads = json.loads((folder / "config.json").read_text())["num_heads"]
    labeler = ImageBind(ImageBindParams(heads=heads), str(folder / "model.safetensors"))
    labeler.load(CPU)
    golden = np.load(folder / "io.npz")
    with torch.inference_mode():
        patches, class_tokens = labeler._tower(torch.from_numpy(golden["image"]))
        embeddings = labeler._tower.embed(class_tokens)
    found = {"patch_tokens": patches, "cls_token": class_tokens, "embedding": embeddings}
    for name, absolute in {"patch_tokens": 2e-4, "cls_token": 2e-4, "embedding": 2e-5}.items():
        error = np.abs(found[name].numpy() - golden[name]).max()
        assert error <= absolute
        assert error <= 1e-4 * np.abs(golden[name]).max()


@pytest.mark.parametrize("global_from", ["cls", "embedding"])
def test_labels_of_golden_pictures(shared, batch_of, global_from):
    """From bytes to labels, through the labeler's own preprocessing."""
    folder = shared / "golden/imagebind_vision"
    labeler = ImageBind(ImageBindParams(heads=4, global_from=global_from), str(folder / "model.safetensors"))
    golden = np.load(folder / "io.npz")
    maps, vectors = labels_of(labeler, batch_of(golden["image_uint8"]))
    expected = golden["patch_tokens"].transpose(0, 2, 1).reshape(2, 64, 16, 16)
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=5e-3)  # stored as float16
    name, absolute = ("cls_token", 2e-4) if global_from == "cls" else ("embedding", 2e-5)
    np.testing.assert_allclose(vectors, golden[name], rtol=1e-4, atol=absolute)


def film_reference(path, view, heads):
    """The paper's network step by step from the file's tensors: a still image is a film that shows it twice."""
    file = torch.load(path, weights_only=True)
    stem, trunk, head = (f"modality_{part}.vision." for part in ("preprocessors", "trunks", "heads"))
    picture = (torch.from_numpy(view).permute(2, 0, 1) / 255 - MEAN) / STD
    film = torch.stack([picture, picture], dim=1)[None]
    patches = conv3d(film, file[STEM], stride=(2, 14, 14)).flatten(2).transpose(1, 2)
    tokens = torch.cat([file[f"{stem}cls_token"], patches], dim=1) + file[f"{stem}pos_embedding_helper.pos_embed"]

    def norm(x, name):
        return layer_norm(x, x.shape[-1:], file[f"{name}.weight"], file[f"{name}.bias"], 1e-6)

    tokens = norm(tokens, f"{trunk}pre_transformer_layer.0")
    for block in (f"{trunk}blocks.{index}." for index in range(2)):
        x = norm(tokens, f"{block}norm_1").transpose(0, 1)
        attended = multi_head_attention_forward(
            x, x, x, x.shape[-1], heads, file[f"{block}attn.in_proj_weight"], file[f"{block}attn.in_proj_bias"],
            None, None, False, 0.0, file[f"{block}attn.out_proj.weight"], file[f"{block}attn.out_proj.bias"],
            training=False,
        )  # fmt: skip
        tokens = tokens + attended[0].transpose(0, 1)
        hidden = gelu(
            linear(norm(tokens, f"{block}norm_2"), *(file[f"{block}mlp.fc1.{e}"] for e in ("weight", "bias")))
        )
        tokens = tokens + linear(hidden, *(file[f"{block}mlp.fc2.{e}"] for e in ("weight", "bias")))
    embedding = normalize(linear(norm(tokens[:, 0], f"{head}0"), file[f"{head}2.weight"]), dim=-1)
    return tokens[0, 1:], tokens[0, 0], embedding[0]


def test_equals_the_paper_on_photographs(weights, views, labels, batch_of):
    _, embeddings = labels_of(ImageBind(ImageBindParams(global_from="embedding"), weights), batch_of(views))
    for index, view in enumerate(views):
        patches, class_token, embedding = film_reference(weights, view, heads=16)
        np.testing.assert_allclose(labels[0][index].reshape(32, 256).T, patches, rtol=1e-3, atol=2e-3)
        np.testing.assert_allclose(labels[1][index], class_token, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(embeddings[index], embedding, rtol=1e-4, atol=1e-6)
    assert np.ptp(labels[1], axis=0).max() > 1e-2  # the photographs' labels aren't all the same


def test_a_larger_view_is_scaled_as_the_reference_does(weights, views, batch_of):
    large = np.stack([np.asarray(Image.fromarray(view).resize((336, 336))) for view in views])
    small = np.stack([np.asarray(Image.fromarray(view).resize((224, 224), Image.Resampling.BICUBIC)) for view in large])
    found, expected = (labels_of(ImageBind(weights=weights), batch_of(images)) for images in (large, small))
    np.testing.assert_allclose(found[0], expected[0], atol=3e-2)  # Pillow there: within a grey level
    np.testing.assert_allclose(found[1], expected[1], atol=3e-2)


def test_labels_alone_and_in_a_batch(weights, views, labels, batch_of):
    alone = labels_of(ImageBind(weights=weights), batch_of(views[1:2]))
    np.testing.assert_allclose(alone[0][0], labels[0][1], atol=2e-3)
    np.testing.assert_allclose(alone[1][0], labels[1][1], atol=1e-5)


def test_black_and_grey_views_have_labels(weights, batch_of):
    labeler = ImageBind(weights=weights)
    labeler.load(CPU)
    odd = np.stack([np.zeros((224, 224, 3), np.uint8), np.full((224, 224, 3), 128, np.uint8)])
    labels = labeler.label(batch_of(odd))
    for modality in labeler.makes:
        for label in labels[modality.name]:
            assert modality.kind.check(label) is label


def test_shapes_are_known_before_the_weights_are_loaded(weights):
    assert [modality.kind.describe() for modality in ImageBind().makes] == [
        {"kind": "feature_map", "channels": 1280, "height": 16, "width": 16},
        {"kind": "vector", "dim": 1280},
    ]
    embedding = ImageBindParams(global_from="embedding")
    assert ImageBind(embedding).makes[1].kind.describe() == {"kind": "vector", "dim": 1024}
    assert ImageBind(embedding, weights).makes[1].kind.describe() == {"kind": "vector", "dim": 24}


# --- checkpoints ------------------------------------------------------------------------------------------------------


def changed(weights: str, to: Path, **tensors: torch.Tensor | None) -> str:
    """A copy of the checkpoint with tensors replaced, or left out where None; `__` stands for a dot."""
    state = torch.load(weights, weights_only=True)
    for name, tensor in tensors.items():
        state.pop(name.replace("__", "."), None)
        if tensor is not None:
            state[name.replace("__", ".")] = tensor
    torch.save(state, to)
    return str(to)


def test_the_other_towers_are_ignored(weights, tmp_path, views, labels, batch_of):
    assert any(".audio." in name for name in torch.load(weights, weights_only=True))
    other = changed(
        weights,
        tmp_path / "a.pth",
        modality_trunks__audio__blocks__0__attn__bias_k=None,
        modality_postprocessors__text__1__log_logit_scale=torch.ones([]),
    )
    np.testing.assert_array_equal(labels_of(ImageBind(weights=other), batch_of(views))[1], labels[1])


@pytest.mark.parametrize(
    "name",
    [
        "modality_preprocessors__vision__cls_token",
        "modality_preprocessors__vision__rgbt_stem__proj__1__weight",
        "modality_preprocessors__vision__pos_embedding_helper__pos_embed",
        "modality_trunks__vision__pre_transformer_layer__0__bias",
        "modality_trunks__vision__blocks__1__attn__in_proj_bias",
        "modality_heads__vision__0__weight",
        "modality_heads__vision__2__weight",
    ],
)
def test_a_checkpoint_that_lacks_a_tensor_is_refused(weights, tmp_path, name):
    path = changed(weights, tmp_path / "short.pth", **{name: None})
    with pytest.raises(CheckpointError, match=rf"short\.pth: .*lacks {name.replace('__', '.')}"):
        ImageBind(weights=path).load(CPU)


def test_a_checkpoint_with_more_or_other_shapes_is_refused(weights, tmp_path):
    more = {"modality_postprocessors__vision__1__log_logit_scale": torch.ones([])}
    with pytest.raises(CheckpointError, match=r"has an unknown modality_postprocessors\.vision\.1\.log_logit_scale"):
        ImageBind(weights=changed(weights, tmp_path / "more.pth", **more)).load(CPU)
    flat = {"modality_preprocessors__vision__rgbt_stem__proj__1__weight": torch.ones(32, 3, 14, 14)}
    with pytest.raises(CheckpointError, match="has 4 dimensions, not ImageBind's 5"):
        ImageBind(weights=changed(weights, tmp_path / "flat.pth", **flat))
    narrow = {"modality_trunks__vision__blocks__0__mlp__fc1__weight": torch.ones(64, 32)}
    with pytest.raises(CheckpointError, match=r"fc1\.weight of shape \(64, 32\), not \(128, 32\)"):
        ImageBind(weights=changed(weights, tmp_path / "narrow.pth", **narrow)).load(CPU)
    with pytest.raises(CheckpointError, match="7 heads don't divide its width of 32"):
        ImageBind(ImageBindParams(heads=7), weights)


class Code:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_what_is_no_checkpoint_of_imagebind_is_refused(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(weights, "cut.pth")
    Path("cut.pth").write_bytes(Path(weights).read_bytes()[:50_000])
    with pytest.raises(CheckpointError, match=r"cut\.pth: isn't a whole checkpoint"):
        ImageBind(weights="cut.pth")
    torch.save({"a": torch.ones(3), "b": Code()}, "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth: holds more than tensors"):
        ImageBind(weights="evil.pth")
    assert not Path("ran").exists()
    save_file({"conv.weight": torch.ones(2)}, "other.safetensors")
    with pytest.raises(CheckpointError, match=r"is it ImageBind's checkpoint \(imagebind_huge\.pth\)"):
        ImageBind(weights="other.safetensors")
    with pytest.raises(CheckpointError, match="no such file"):
        ImageBind().load(CPU)  # a labeler fetches nothing by itself


def test_the_weights_forbid_commercial_use_whatever_the_file_is_called():
    assert ImageBind.weights is not None
    for source in (DEFAULT_WEIGHTS, "s3://bucket/imagebind_huge.pth", "/models/renamed.safetensors"):
        assert ImageBind.weights.licence_of(source) == "CC-BY-NC-SA-4.0"
