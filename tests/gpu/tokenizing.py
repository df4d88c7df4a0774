"""The tokenizers' networks on a device: every kind of encoder, quantiser and decoder, encoding and decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from meters import inference, on_gpu, spent
from tokenloom.tokenizers.networks.vq_config import VQConfig
from tokenloom.tokenizers.networks.vq_network import VQ, build
from vq_gpu import FULL, fastest

DTYPE = "bfloat16"
STEPS = 25
"""Of a decoder that denoises."""


@dataclass(frozen=True)
class Family:
    """cells: side of the input in cells where it is a feature map, 1 for vectors; None for images and maps of classes,
    which have the size that the network is for. batch: examples that go through it together."""

    config: VQConfig
    batch: int
    cells: int | None = None


VIT = {"enc_type": "vit_b_enc", "dec_type": "vit_b_dec", "post_mlp": True}
MLP = {"enc_type": "BottleneckMLP/B_6-Wi_1024", "dec_type": "BottleneckMLP/B_6-Wi_1024", "patch_proj": False}
FSQ = {"quant_type": "fsq", "levels": (8, 8, 8, 6, 5), "codebook_size": 15360, "latent_dim": 5}
RESIDUAL = {"quant_type": "residual", "num_codebooks": 4, "codebook_size": 1024}
MEMCODES = {"quant_type": "memcodes", "latent_dim": 1024}
MASKS = {"image_size": 64, "n_channels": 1, "out_conv": True, "codebook_size": 1024, "latent_dim": 1024}


def family(batch: int, cells: int | None = None, **fields: Any) -> Family:
    return Family(VQConfig.model_validate(fields), batch, cells)


FAMILIES = {
    "rgb, as 4M: decoded by diffusion": Family(FULL, 64),
    "rgb, a ViT decodes, Euclidean codes": family(64, **VIT, norm_codes=False),
    "rgb, FSQ": family(64, **VIT, **FSQ),
    "rgb, residual": family(64, **VIT, **RESIDUAL),
    "semseg_coco, as 4M": family(64, **VIT, n_labels=134, n_channels=64, codebook_size=4096),
    "clip, as 4M": family(64, cells=14, **VIT, n_channels=512, patch_proj=False, codebook_size=8192),
    "dinov2_global, as 4M: memcodes": family(
        256, cells=1, **MLP, **MEMCODES, n_channels=768, num_codebooks=16, codebook_size=8192
    ),
    "sam_instance, as 4M: masks": family(256, enc_type="vit_b_enc", dec_type="vit_b_dec", **MASKS),
    "human_poses: memcodes": family(
        256, cells=1, **MLP, **MEMCODES, n_channels=207, num_codebooks=8, codebook_size=1024
    ),
}


@torch.inference_mode()
def measured(name: str, device: str, quick: bool) -> dict[str, Any]:
    """Examples a second that are encoded, and decoded, under autocast and in float32; the memory that each takes; and
    the share of tokens that autocast changes."""
    family = _tiny(FAMILIES[name]) if quick else FAMILIES[name]
    torch.manual_seed(0)
    network = build(family.config).eval().requires_grad_(False).to(device)
    x = _input(family).to(device)
    steps, rounds = (2, 1) if quick else (STEPS, 5)
    tokens = {dtype: _tokens(network, x, device, dtype) for dtype in (None, DTYPE)}
    found: dict[str, Any] = {
        "million_parameters": round(sum(p.numel() for p in network.parameters()) / 1e6, 1),
        "batch": family.batch,
        "steps": steps if family.config.is_diffusion else None,
        "tokens_changed": round(float((tokens[None] != tokens[DTYPE]).float().mean()), 4),
    }
    runs: dict[str, Callable[[], Any]] = {"encoded": lambda: network.tokenize(x)}
    if family.config.is_diffusion and find_spec("diffusers") is None:
        found["left_out"] = "decoding: diffusers isn't installed"
    else:
        runs["decoded"] = lambda: network.decode_tokens(tokens[DTYPE], steps=steps)
    for dtype in (DTYPE, None):
        with inference(device, dtype):
            for what, run in runs.items():
                seconds = fastest(run, rounds, on_gpu(device))
                found[f"{what}_per_second_{dtype or 'float32'}"] = round(family.batch / seconds, 2)
                found[f"{what}_peak_mib_{dtype or 'float32'}"] = spent(device, run).peak_mib
    return found


def _tokens(network: VQ, x: torch.Tensor, device: str, dtype: str | None) -> torch.Tensor:
    with inference(device, dtype):
        return network.tokenize(x)


def _input(family: Family) -> torch.Tensor:
    config, side = family.config, family.cells or family.config.image_size
    if config.n_labels is not None:
        return torch.randint(config.n_labels, (family.batch, side, side))
    return torch.rand(family.batch, config.n_channels, side, side)


def _tiny(family: Family) -> Family:
    """The same kinds of parts, as small as they come."""
    fields = family.config.model_dump()
    if family.cells == 1:
        parts = {"enc_type": "BottleneckMLP/B_1-Wi_32", "dec_type": "BottleneckMLP/B_1-Wi_32"}
    else:
        diffusion = family.config.is_diffusion
        parts = {"enc_type": "vit_xt_enc", "dec_type": "unet_xt" if diffusion else "vit_xt_dec", "image_size": 64}
    return Family(VQConfig.model_validate({**fields, **parts}), 2, family.cells)
