"""Checkpoints of VQ networks: the published key names, round trips, and refusals that name what is wrong."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save, save_file
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.tokenizers.networks.vq_checkpoint import read_files, read_published, write_published
from tokenloom.tokenizers.networks.vq_config import VQConfig
from tokenloom.tokenizers.networks.vq_network import build

TINY = VQConfig(enc_type="vit_xt_enc", dec_type="vit_xt_dec", image_size=32, codebook_size=16, latent_dim=8)


def published_sections(shared: Path) -> Iterator[tuple[str, dict, dict[str, tuple[int, ...]]]]:
    """Name, constructor's arguments, and shapes by key, of each tokenizer in published_keys.txt."""
    text = (shared / "golden/vq/published_keys.txt").read_text()
    for section in text.strip().split("\n\n"):
        title, arguments, _, *lines = section.splitlines()
        shapes = {name: ast.literal_eval(shape) for name, shape, _ in (line.split("\t") for line in lines)}
        yield title, ast.literal_eval(arguments.partition("kwargs: ")[2]), shapes


def test_networks_have_the_published_keys_and_shapes(shared: Path) -> None:
    sections = list(published_sections(shared))
    assert len(sections) == 6
    for title, arguments, expected in sections:
        with torch.device("meta"):
            network = build(VQConfig.model_validate(arguments))
        assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == expected, title


@pytest.mark.parametrize("name", ["rgb_vqvae_cos", "depth_divae", "dino_global_mem"])
def test_a_published_folder_is_read(shared: Path, name: str) -> None:
    config, rest, network = read_published(shared / "golden/vq" / name)
    expected = np.load(shared / "golden/vq" / name / "io.npz")
    assert network.tokenize(torch.from_numpy(expected["x"])).numpy().tolist() == expected["tokens"].tolist()
    assert rest["sync_codebook"] is False
    assert config.is_diffusion == (name == "depth_divae")


def test_the_configuration_may_lie_in_the_header(shared: Path, tmp_path: Path) -> None:
    folder = shared / "golden/vq/sam_mask64"
    config = json.loads((folder / "config.json").read_text())
    header = {name: str(value) for name, value in config.items()}
    save_file(load((folder / "model.safetensors").read_bytes()), tmp_path / "sam-instance_1k_64.safetensors", header)
    read, rest, _ = read_published(tmp_path)
    assert read == read_published(folder)[0]
    assert read.out_conv is True
    assert rest["class"] == "VQVAE"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm_codes": False},
        {"quant_type": "fsq", "levels": (4, 4), "latent_dim": 2},
        {"quant_type": "residual", "num_codebooks": 3},
        {"quant_type": "memcodes", "num_codebooks": 2},
        {"dec_type": "unet_xt"},
        {"n_labels": 5, "n_channels": 4},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "cosine",
)
def test_written_networks_are_read_back(changes: dict) -> None:
    network = build(VQConfig(**{**TINY.model_dump(), **changes}))
    files = write_published(network, {"tokenizer": "VQTokenizer", "fit": {"steps": 3}})
    config, rest, read = read_files(files)
    assert config == network.config
    assert rest == {"sync_codebook": False, "tokenizer": "VQTokenizer", "fit": {"steps": 3}}
    assert read.state_dict().keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor), name
    assert not read.training
    assert write_published(read, {"tokenizer": "VQTokenizer", "fit": {"steps": 3}}) == files


def test_reading_leaves_torch_s_generator_alone() -> None:
    files = write_published(build(TINY), {})
    torch.manual_seed(3)
    read_files(files)
    drawn = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(2), drawn)


def test_published_defaults_hold_where_a_diffusion_s_configuration_is_silent() -> None:
    network = build(VQConfig(**{**TINY.model_dump(), "dec_type": "unet_xt"}))
    files = write_published(network, {})
    said = {name: value for name, value in json.loads(files["config.json"]).items() if name != "prediction_type"}
    config, _, _ = read_files({**files, "config.json": json.dumps(said).encode()})
    assert config.prediction_type == "v_prediction"
    assert config.beta_schedule == "linear"


def changed(files: dict[str, bytes], **tensors: torch.Tensor | None) -> dict[str, bytes]:
    kept = {**load(files["model.safetensors"]), **{name.replace("__", "."): tensors[name] for name in tensors}}
    return {**files, "model.safetensors": save({name: t for name, t in kept.items() if t is not None})}


def test_wrong_checkpoints_are_refused_by_name(tmp_path: Path) -> None:
    files = write_published(build(TINY), {})
    config = json.loads(files["config.json"])

    def refuses(wrong: dict[str, bytes], *words: str) -> None:
        with pytest.raises(CheckpointError) as error:
            read_files(wrong, "s3://bucket/tok")
        for word in ("s3://bucket/tok", *words):
            assert re.search(re.escape(word), str(error.value)), str(error.value)

    refuses(changed(files, quant_proj__bias=None), "model.safetensors", "lacks quant_proj.bias")
    refuses(changed(files, encoder__cls_token=torch.zeros(1)), "unknown encoder.cls_token")
    refuses(changed(files, quant_proj__bias=torch.zeros(9)), "quant_proj.bias", "(9,)", "(8,)")
    refuses({**files, "model.safetensors": files["model.safetensors"][:-10]}, "model.safetensors", "whole")
    refuses({"config.json": files["config.json"]}, "no model.safetensors")
    refuses({"model.safetensors": files["model.safetensors"]}, "no config.json")
    refuses({**files, "config.json": b"{"}, "config.json", "JSON")
    refuses({**files, "config.json": b"[]"}, "config.json", "list")
    wrong = json.dumps({**config, "enc_type": "swin_b_enc"}).encode()
    refuses({**files, "config.json": wrong}, "swin_b_enc", "vit_b_enc")
    wrong = json.dumps({**config, "codebook_size": "many"}).encode()
    refuses({**files, "config.json": wrong}, "codebook_size")


def test_wrong_folders_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no model\.safetensors and no \.safetensors file"):
        read_published(tmp_path)
    files = write_published(build(TINY), {})
    (tmp_path / "model.safetensors").write_bytes(files["model.safetensors"])
    with pytest.raises(CheckpointError, match=r"no config\.json beside it"):
        read_published(tmp_path)
    (tmp_path / "config.json").write_bytes(files["config.json"])
    assert read_published(str(tmp_path))[0] == TINY
    shutil.copy(tmp_path / "model.safetensors", tmp_path / "other.safetensors")
    (tmp_path / "model.safetensors").rename(tmp_path / "another.safetensors")
    with pytest.raises(CheckpointError, match=r"2 \.safetensors files"):
        read_published(tmp_path)


def test_a_second_meaning_of_a_field_is_refused() -> None:
    with pytest.raises(ValueError, match="'levels' is a field"):
        write_published(build(TINY), {"levels": 3})
