"""Maps, feature maps and vectors by VQ networks: tokens and back, the published format, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenloom.labelers.contract.kinds import FeatureMap, Image, Instances, Kind, LabelError, Vector
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.tokenizers.contract.tokenizer import Tokenizer
from tokenloom.tokenizers.fitting.settings import FitSettings
from tokenloom.tokenizers.vq.input_contract import ContractError
from tokenloom.tokenizers.vq.vq import VQParams, VQTokenizer

TINY = {"encoder": "vit_xt_enc", "decoder": "vit_xt_dec", "codes": 32}
MLP = "BottleneckMLP/B_1-Wi_32"
DEPTH = Image(channels=1, dtype="float32", content="intensity")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def label_of(kind: Kind, seed: int = 0, side: int = 32) -> np.ndarray:
    generator = rng(seed)
    if isinstance(kind, FeatureMap):
        return generator.standard_normal((kind.channels, kind.height, kind.width)).astype(np.float16)
    if isinstance(kind, Vector):
        return generator.standard_normal(kind.dim).astype(np.float32)
    assert isinstance(kind, Image)
    shape = (side, side) if kind.channels == 1 else (side, side, kind.channels)
    if kind.content == "classes":
        return generator.choice([0, 1, 255], shape).astype(kind.dtype)
    if kind.dtype == "float32":
        return generator.random(shape).astype(np.float32)
    return generator.integers(0, 256, shape).astype(kind.dtype)


def untrained(kind: Kind, sample: int = 8, seed: int = 0, **params: Any) -> VQTokenizer:
    """A tokenizer whose network was designed for a sample, and left as it is."""
    tokenizer = VQTokenizer(kind, VQParams(**{**TINY, **params}))
    examples = np.concatenate([tokenizer.examples(label_of(kind, seed)) for seed in range(sample)])
    tokenizer.finish(tokenizer.design(examples, seed), {"steps": 0})
    return tokenizer


CASES: dict[str, tuple[Kind, dict[str, Any], tuple[str, int, tuple[int, int] | None]]] = {
    "colour": (Image(), {}, ("grid", 4, (2, 2))),
    "edges": (Image(channels=1, content="intensity"), {"patch_size": 8}, ("grid", 16, (4, 4))),
    "depth": (DEPTH, {"quantizer": "euclidean"}, ("grid", 4, (2, 2))),
    "normals": (Image(content="normals"), {"quantizer": "fsq", "levels": (5, 5, 3)}, ("grid", 4, (2, 2))),
    "classes": (Image(channels=1, content="classes", classes=5), {}, ("grid", 4, (2, 2))),
    "residual": (Image(), {"quantizer": "residual", "tokens": 3}, ("grid", 12, (2, 2))),
    "features": (FeatureMap(12, 3, 3), {}, ("grid", 9, (3, 3))),
    "wide": (FeatureMap(6, 2, 5), {}, ("grid", 10, (2, 5))),
    "vector": (Vector(24), {"encoder": MLP, "decoder": MLP, "tokens": 8}, ("vector", 8, None)),
    "diffusion": (Image(), {"decoder": "unet_xt"}, ("grid", 4, (2, 2))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_labels_become_tokens_and_come_back(name):
    kind, params, (form, length, grid) = CASES[name]
    tokenizer = untrained(kind, **params)
    spec = tokenizer.spec
    assert (spec.type, spec.length, spec.max_length, spec.grid) == (form, length, length, grid)
    labels = [label_of(kind, seed) for seed in range(2 if name == "diffusion" else 5)]
    tokens = tokenizer.encode(labels)
    for ids in tokens:
        assert (ids.dtype, ids.shape) == (spec.dtype, (length,))
        assert (ids < spec.vocabulary).all()
    decoded = tokenizer.decode(tokens)
    for label, back in zip(labels, decoded, strict=True):
        kind.check(back)
        assert (back.shape, back.dtype) == (label.shape, label.dtype)
    again = VQTokenizer.from_files(kind, tokenizer.to_files())
    assert again.spec == spec
    assert again.params == tokenizer.params
    assert again.contract == tokenizer.contract
    assert again.to_files() == tokenizer.to_files()
    for ids, same in zip(tokens, again.encode(labels), strict=True):
        np.testing.assert_array_equal(ids, same)
    for back, same in zip(decoded, again.decode(tokens), strict=True):
        np.testing.assert_array_equal(back, same)
    assert tokenizer.encode([]) == tokenizer.decode([]) == []


def test_what_a_label_becomes_does_not_depend_on_its_neighbours():
    tokenizer = untrained(Image(), decoder="unet_xt")
    labels = [label_of(Image(), seed) for seed in range(3)]
    tokens = tokenizer.encode(labels)
    np.testing.assert_array_equal(tokens[2], tokenizer.encode(labels[2:])[0])
    np.testing.assert_allclose(tokenizer.decode(tokens)[2].astype(int), tokenizer.decode(tokens[2:])[0], atol=1)


def test_tokens_of_several_codebooks_stand_one_codebook_after_the_other():
    tokenizer = untrained(Image(), quantizer="residual", tokens=3)
    label = label_of(Image())
    (ids,) = tokenizer.encode([label])
    cells = tokenizer.network.tokenize(tokenizer.to_batch(label[None]))
    assert cells.shape == (1, 3, 2, 2)
    np.testing.assert_array_equal(ids.reshape(3, 2, 2), cells[0])


def test_large_vocabularies_take_uint32():
    small = untrained(Image(), quantizer="fsq", codes=65536)
    assert small.spec.vocabulary == 64000
    assert small.encode([label_of(Image())])[0].dtype == np.uint16
    large = untrained(Image(), quantizer="fsq", levels=(41, 41, 41))
    assert large.spec.vocabulary == 68921
    (ids,) = large.encode([label_of(Image())])
    assert ids.dtype == np.uint32
    high = np.full(4, 68920, np.uint32)
    large.kind.check(large.decode([high])[0])
    with pytest.raises(ValueError, match="68921 leave the vocabulary"):
        large.decode([high + 1])


def test_a_fit_is_deterministic_and_says_what_it_found():
    labels = [label_of(Image(), seed) for seed in range(6)]
    found = []
    for _ in range(2):
        tokenizer = VQTokenizer(Image(), VQParams(**TINY))
        tokenizer.settings = FitSettings(steps=3, batch_size=4)
        assert tokenizer.needs_fit
        tokenizer.fit(iter(labels), seed=1)
        assert not tokenizer.needs_fit
        found.append(tokenizer.to_files())
    assert found[0] == found[1]
    config = json.loads(found[0]["config.json"])
    assert config["fit"]["steps"] == 3
    assert config["contract"]["source"].startswith("(x / max")
    assert (config["enc_type"], config["codebook_size"], config["quant_type"]) == ("vit_xt_enc", 32, "lucid")


def test_objectives_are_those_of_4m_unless_one_is_chosen():
    wanted = {"colour": "mse", "edges": "smooth_l1", "depth": "smooth_l1", "normals": "mse", "vector": "cosine"}
    wanted |= {"classes": "cross_entropy", "features": "smooth_l1"}
    for name, objective in wanted.items():
        assert untrained(CASES[name][0], **CASES[name][1]).objective == objective
    assert untrained(Image(), objective="l1").objective == "l1"


# what is refused


@pytest.mark.parametrize("name", ["depth", "features", "vector"])
def test_labels_that_are_not_finite_are_named(name):
    kind, params, _ = CASES[name]
    tokenizer = untrained(kind, **params)
    for bad in (np.nan, np.inf):
        label = label_of(kind)
        label.flat[0] = bad
        with pytest.raises(ValueError, match=r"1 of the label's \d+ numbers are NaN or infinite"):
            tokenizer.encode([label])


def test_wrong_labels_are_named():
    tokenizer = untrained(Image())
    with pytest.raises(ContractError, match=r"shape \(48, 32, 3\); its tokenizer takes \(32, 32, 3\)"):
        tokenizer.encode([np.zeros((48, 32, 3), np.uint8)])
    with pytest.raises(LabelError, match="shape"):
        tokenizer.encode([np.zeros((32, 32, 4), np.uint8)])
    with pytest.raises(LabelError, match="dtype float64"):
        tokenizer.encode([np.zeros((32, 32, 3))])
    with pytest.raises(ContractError, match="the id 7"):
        untrained(Image(channels=1, content="classes", classes=5)).encode([np.full((32, 32), 7, np.uint8)])


def test_wrong_tokens_are_named():
    tokenizer = untrained(Image())
    for ids, message in (
        ([0, 1, 2], "takes 4 tokens, not 3"),
        ([0, 1, 2, 32], r"0\.\.32 leave"),
        ([-1, 0, 0, 0], "-1"),
    ):
        with pytest.raises(ValueError, match=message):
            tokenizer.decode([np.array(ids)])


def test_a_tokenizer_that_was_not_fitted_says_so():
    tokenizer = VQTokenizer(Image())
    for use in (lambda: tokenizer.spec, lambda: tokenizer.encode([]), lambda: tokenizer.to_files()):
        with pytest.raises(RuntimeError, match="isn't fitted yet"):
            use()


def test_samples_that_cannot_be_fitted_are_named():
    tokenizer = VQTokenizer(Image(), VQParams(**TINY))
    with pytest.raises(ValueError, match="sample holds nothing"):
        tokenizer.fit([], 0)
    with pytest.raises(ValueError, match=r"one size make a sample; there are \(16, 16, 3\), \(32, 32, 3\)"):
        tokenizer.fit([label_of(Image()), label_of(Image(), side=16)], 0)
    with pytest.raises(ValueError, match="40x40 can't be cut into patches of 16 pixels"):
        tokenizer.fit([label_of(Image(), side=40)], 0)


BAD_PARAMS: list[tuple[Kind, dict[str, Any], str]] = [
    (Image(), {"levels": (5, 5)}, "levels are for the quantizer fsq"),
    (Image(), {"tokens": 2}, "cosine gives one per cell"),
    (Image(), {"quantizer": "fsq", "codes": 1000}, r"codes = 1000: give fsq its levels"),
    (Image(), {"encoder": "vit_huge_enc"}, "vit_huge_enc"),
    (FeatureMap(4, 2, 2), {"decoder": "unet_xt"}, "unet_xt"),
]


@pytest.mark.parametrize(("kind", "params", "message"), BAD_PARAMS)
def test_parameters_that_do_not_fit_are_named(kind, params, message):
    with pytest.raises(ValueError, match=message):
        untrained(kind, **params)


def test_files_of_another_tokenizer_or_kind_are_refused():
    files = untrained(Image()).to_files()
    with pytest.raises(ValueError, match="made for the kind"):
        VQTokenizer.from_files(Image(content="normals"), files)
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        VQTokenizer.from_files(Image(), {"config.json": files["config.json"]})
    config = json.loads(files["config.json"])
    other = json.dumps({**config, "tokenizer": "Codebook"}).encode()
    with pytest.raises(ValueError, match="made for the tokenizer Codebook, not for VQTokenizer"):
        VQTokenizer.from_files(Image(), {**files, "config.json": other})
    config["contract"]["channels"] = 1
    with pytest.raises(ValueError, match="n_channels = 3; a colour label has 1"):
        VQTokenizer.from_files(Image(), {**files, "config.json": json.dumps(config).encode()})


# weights


@pytest.fixture
def golden(shared: Path, tmp_path: Path):
    """Copies a folder of the golden data under the name that it would have on the hub."""

    def copy(name: str, hub_name: str = "some-tokenizer") -> Path:
        return Path(shutil.copytree(shared / "golden/vq" / name, tmp_path / hub_name))

    return copy


def load(kind: Kind, folder: Path, **params: Any) -> VQTokenizer:
    tokenizer = VQTokenizer.from_weights(kind, VQParams(**params), folder, str(folder))
    assert isinstance(tokenizer, VQTokenizer)
    return tokenizer


PUBLISHED: list[tuple[str, str, Kind, int]] = [
    ("rgb_vqvae_cos", "4M_tokenizers_rgb_16k_224-448", Image(), 196),
    ("depth_divae", "4M_tokenizers_depth_8k_224-448", DEPTH, 196),
    ("dinov2_featmap", "4M_tokenizers_DINOv2-B14_8k_224-448", FeatureMap(768, 16, 16), 256),
    ("dino_global_mem", "4M_tokenizers_DINOv2-B14-global_8k_16_224", Vector(768), 16),
]


@pytest.mark.parametrize(("name", "hub_name", "kind", "length"), PUBLISHED)
def test_published_tokenizers_load(golden, name, hub_name, kind, length):
    folder = golden(name, hub_name)
    tokenizer = load(kind, folder)
    assert tokenizer.spec.length == length
    label = label_of(kind, side=224)
    batch = tokenizer.to_batch(label[None])
    assert batch.shape[1] == tokenizer.network.config.n_channels
    (ids,) = tokenizer.encode([label])
    np.testing.assert_array_equal(ids, tokenizer.network.tokenize(batch).flatten())
    again = VQTokenizer.from_files(kind, tokenizer.to_files())
    np.testing.assert_array_equal(again.encode([label])[0], ids)
    assert json.loads(tokenizer.to_files()["config.json"])["fit"] == {"weights": str(folder)}
    if name != "depth_divae":  # 25 steps of diffusion at 224 pixels take too long
        kind.check(tokenizer.decode([ids])[0])


def test_golden_vectors_have_their_tokens_and_reconstructions(golden):
    folder = golden("dino_global_mem")
    tokenizer = load(Vector(768), folder)
    io = np.load(folder / "io.npz")
    tokens = tokenizer.encode(list(io["x"].reshape(-1, 768)))
    np.testing.assert_array_equal(np.stack(tokens), io["tokens"].reshape(-1, 16))
    np.testing.assert_allclose(np.stack(tokenizer.decode(tokens)), io["recon"].reshape(-1, 768), atol=1e-5)


def test_published_images_have_the_size_that_is_asked_for(golden):
    folder = golden("rgb_vqvae_cos")
    config = json.loads((folder / "config.json").read_text())
    network = load_file(folder / "model.safetensors")
    for name in ("encoder.pos_emb", "decoder.pos_emb"):
        network[name] = torch.nn.functional.interpolate(network[name], size=(28, 28), mode="bicubic")
    save_file(network, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config, "image_size": 448}))
    assert load(Image(), folder).spec.grid == (14, 14)
    assert load(Image(), folder, image_size=256).spec.grid == (16, 16)
    for size in (192, 230, 464):
        with pytest.raises(ValueError, match=f"224 to 448 pixels a side, in steps of 16; image_size = {size}"):
            load(Image(), folder, image_size=size)


OTHERS: list[tuple[str, str, Kind, str]] = [
    ("depth_divae", "4M_tokenizers_depth_8k_224-448", Image(), "from another modality: it is for depth maps"),
    ("depth_divae", "4M_tokenizers_depth_8k_224-448", Image(channels=1, content="intensity"), "for depth maps"),
    ("rgb_vqvae_cos", "4M_tokenizers_rgb_16k_224-448", Image(content="normals"), "for colour images"),
    ("rgb_vqvae_cos", "4M_tokenizers_CLIP-B16_8k_224-448", FeatureMap(768, 16, 16), "feature maps of 512 channels"),
    ("rgb_vqvae_cos", "4M_tokenizers_sam-instance_1k_64", Instances(), "for masks of instances"),
    ("rgb_vqvae_cos", "unnamed", DEPTH, "n_channels = 3; a depth label has 1"),
    ("rgb_vqvae_cos", "unnamed", Image(channels=4), "n_channels = 3; a colour label has 4"),
    ("rgb_vqvae_cos", "unnamed", FeatureMap(3, 14, 14), "is for labels of the kind 'image', not 'feature_map'"),
    ("rgb_vqvae_cos", "unnamed", Image(channels=1, content="classes", classes=133), "n_labels = None, not for 133"),
    ("dinov2_featmap", "unnamed", FeatureMap(512, 16, 16), "n_channels = 768; a features label has 512"),
    ("dino_global_mem", "unnamed", FeatureMap(768, 16, 16), "is for labels of the kind 'vector', not 'feature_map'"),
]


@pytest.mark.parametrize(("name", "hub_name", "kind", "message"), OTHERS)
def test_a_codebook_from_another_modality_is_refused(golden, name, hub_name, kind, message):
    folder = golden(name, hub_name)
    with pytest.raises(ValueError, match=message) as raised:
        VQTokenizer.from_weights(kind, None, folder, f"EPFL-VILAB/{hub_name}")
    assert f"EPFL-VILAB/{hub_name}" in str(raised.value)


def test_checkpoints_with_missing_or_extra_keys_are_named(golden):
    folder = golden("rgb_vqvae_cos")
    tensors = load_file(folder / "model.safetensors")
    for changed, key in (
        ({name: tensor for name, tensor in tensors.items() if name != "quant_proj.bias"}, "quant_proj.bias"),
        ({**tensors, "decoder.surplus": torch.zeros(1)}, "decoder.surplus"),
    ):
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=key):
            load(Image(), folder)


def test_parameters_that_weights_settle_are_refused(golden, tmp_path):
    with pytest.raises(ValueError, match="settle codes, patch_size by themselves"):
        load(Image(), golden("rgb_vqvae_cos"), codes=64, patch_size=8)
    for name, content in untrained(Image()).to_files().items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="settle codes by themselves"):
        load(Image(), tmp_path, codes=64)


def test_our_own_files_are_weights_too(tmp_path):
    tokenizer = untrained(Image())
    for name, content in tokenizer.to_files().items():
        (tmp_path / name).write_bytes(content)
    again: Tokenizer = load(Image(), tmp_path)
    assert again.to_files() == tokenizer.to_files()
    with pytest.raises(ValueError, match="made for the kind"):
        load(Image(content="normals"), tmp_path)
