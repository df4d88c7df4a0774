"""VQ networks against the numbers that the reference implementation of the 4M tokenizers produced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenloom.tokenizers.vq_config import VQConfig
from tokenloom.tokenizers.vq_network import VQ, build

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
