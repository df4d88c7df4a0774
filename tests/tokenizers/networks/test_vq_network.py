"""VQ networks against the numbers that the reference implementation of the 4M tokenizers produced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenloom.tokenizers.networks.vq_config import VQConfig
from tokenloom.tokenizers.networks.vq_network import VQ, build

VQVAES = ("rgb_vqvae_cos", "dinov2_featmap", "sam_mask64", "dino_global_mem")


def golden(shared: Path, name: str) -> tuple[VQ, dict[str, torch.Tensor]]:
    folder = shared / "golden" / "vq" / name
    network = build(VQConfig.model_validate_json((folder / "config.json").read_text()))
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return network.eval(), {name: torch.from_numpy(array) for name, array in np.load(folder / "io.npz").items()}


@pytest.mark.parametrize("name", [*VQVAES])
def test_tokens_and_latents_are_the_reference_s(shared: Path, name: str) -> None:
    network, expected = golden(shared, name)
    assert torch.equal(network.tokenize(expected["x"]), expected["tokens"])
    with torch.no_grad():
        torch.testing.assert_close(network.latents(expected["x"]), expected["latent"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", VQVAES)
def test_reconstructions_are_the_reference_s(shared: Path, name: str) -> None:
    network, expected = golden(shared, name)
    decoded = network.decode_tokens(expected["tokens"])
    torch.testing.assert_close(decoded, expected["recon"], rtol=0, atol=1e-5)
    with torch.no_grad():
        output = network(expected["x"])
    assert torch.equal(output.tokens, expected["tokens"])
    torch.testing.assert_close(output.prediction, expected["recon"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", VQVAES[:3])
def test_position_embeddings_start_as_the_reference_s(shared: Path, name: str) -> None:
    folder = shared / "golden" / "vq" / name
    network = build(VQConfig.model_validate_json((folder / "config.json").read_text()))
    expected = load_file(folder / "model.safetensors")["encoder.pos_emb"]
    torch.testing.assert_close(network.state_dict()["encoder.pos_emb"], expected, rtol=0, atol=1e-6)


TINY = VQConfig(enc_type="vit_xt_enc", dec_type="vit_xt_dec", image_size=32, codebook_size=16, latent_dim=8)


def tiny(**changes: Any) -> VQ:
    torch.manual_seed(0)
    return build(VQConfig(**{**TINY.model_dump(), **changes})).eval()


def test_class_ids_go_in_and_logits_come_out() -> None:
    network = tiny(n_labels=5, n_channels=4)
    ids = torch.randint(5, (2, 32, 48))
    tokens = network.tokenize(ids)
    assert tokens.shape == (2, 2, 3) == (2, *network.config.grid(32, 48))
    assert network.decode_tokens(tokens).shape == (2, 5, 32, 48)
    output = network.train()(ids)
    assert output.prediction.shape == (2, 5, 32, 48)
    assert torch.equal(output.target, ids)
    torch.nn.functional.cross_entropy(output.prediction, output.target).backward()
    assert network.get_parameter("cls_emb.weight").grad is not None


@pytest.mark.parametrize(
    ("changes", "cells"),
    [
        ({"quant_type": "fsq", "levels": (4, 4), "latent_dim": 2}, ()),
        ({"quant_type": "residual", "num_codebooks": 3}, (3,)),
        ({"quant_type": "memcodes", "num_codebooks": 2}, (2,)),
        ({"norm_codes": False, "kmeans_init": True}, ()),
    ],
)
def test_every_quantiser_trains_a_network(changes: dict[str, Any], cells: tuple[int, ...]) -> None:
    network, x = tiny(**changes).train(), torch.rand(4, 3, 32, 32)
    assert network.config.tokens_per_cell == (cells[0] if cells else 1)
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=2e-3)
    losses = []
    for _ in range(25):
        output = network(x)
        losses.append((output.prediction - output.target).square().mean().item())
        optimiser.zero_grad()
        ((output.prediction - output.target).square().mean() + output.quantizer_loss).backward()
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]
    assert output.tokens.shape == (4, *cells, 2, 2)
    trained = network.eval()
    tokens = trained.tokenize(x)
    with torch.no_grad():
        torch.testing.assert_close(trained(x).prediction, trained.decode_tokens(tokens), rtol=0, atol=1e-5)
    assert trained.reconstruct_unquantised(x).shape == x.shape


def test_other_sizes_take_interpolated_position_embeddings() -> None:
    network = tiny()
    tokens = network.tokenize(torch.rand(1, 3, 64, 16))
    assert tokens.shape == (1, 4, 1)
    assert network.decode_tokens(tokens).shape == (1, 3, 64, 16)


def test_maps_and_vectors_keep_their_grid() -> None:
    assert tiny(patch_proj=False, n_channels=7).tokenize(torch.rand(2, 7, 3, 4)).shape == (2, 3, 4)
    mlps = {"enc_type": "BottleneckMLP/B_1-Wi_16", "dec_type": "BottleneckMLP/B_1-Wi_16"}
    network = tiny(**mlps, n_channels=7, quant_type="memcodes", num_codebooks=4)
    tokens = network.tokenize(torch.rand(2, 7, 1, 1))
    assert tokens.shape == (2, 4, 1, 1)
    assert network.decode_tokens(tokens).shape == (2, 7, 1, 1)
    assert network.config.grid(1, 1) == (1, 1)


def test_random_weights_are_the_seed_s() -> None:
    first, again = tiny().state_dict(), tiny().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    torch.manual_seed(1)
    assert not torch.equal(build(TINY).state_dict()["encoder.proj.weight"], first["encoder.proj.weight"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"enc_type": "swin_b_enc"}, "swin_b_enc.*vit_b_enc"),
        ({"enc_type": "vit_b_dec"}, "vit_b_dec"),
        ({"enc_type": "unet_xt"}, "unet_xt"),
        ({"dec_type": "uvit_b_p4_f16"}, "uvit_b_p4_f16.*unet_patched"),
        ({"image_size": 30}, "image_size 30 isn't a multiple of patch_size 16"),
        ({"quant_type": "fsq"}, "levels"),
        ({"levels": (4, 4)}, "levels"),
        ({"quant_type": "fsq", "levels": (2, 8), "latent_dim": 2}, "at least 3"),
        ({"quant_type": "fsq", "levels": (4, 5), "latent_dim": 2}, "codebook_size 20"),
        ({"num_codebooks": 2}, "one codebook"),
        ({"quant_type": "memcodes", "num_codebooks": 3}, "multiple of num_codebooks 3"),
        ({"dec_type": "unet_xt", "n_labels": 4}, "n_labels"),
        ({"dec_type": "unet_xt", "patch_proj": False}, "patch_proj"),
    ],
)
def test_networks_that_cannot_be_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny(**changes)


def test_inputs_that_patches_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="40x32 can't be cut into patches of 16"):
        TINY.grid(40, 32)
