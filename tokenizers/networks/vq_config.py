"""What a VQ network is made of, in the words of the published 4M tokenizers' config.json."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


@dataclass(frozen=True)
class ViTSize:
    """width: numbers per token. blocks: transformer blocks. heads: of the attention."""

    width: int
    blocks: int
    heads: int


@dataclass(frozen=True)
class UNetSize:
    """channels: at full resolution. multipliers: of the channels, one a level, each level at half the resolution of the
    one before. blocks: residual blocks a level. attention: at which downsampling factors there is self-attention."""

    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]


@dataclass(frozen=True)
class MLPSize:
    """blocks: residual blocks. width: numbers per vector between them; four times as many inside."""

    blocks: int
    width: int


VIT_SIZES = {
    "vit_xt": ViTSize(64, 2, 4),
    "vit_xs": ViTSize(128, 3, 4),
    "vit_t": ViTSize(192, 6, 3),
    "vit_s": ViTSize(512, 8, 8),
    "vit_b": ViTSize(768, 12, 12),
    "vit_l": ViTSize(1024, 24, 16),
}
UNET_SIZES = {
    "unet_xt": UNetSize(32, (1, 2), 1, (4,)),
    "unet_s": UNetSize(96, (1, 2, 2), 2, (4,)),
    "unet_patched": UNetSize(256, (1, 2, 2, 2), 3, (4, 8)),
}

UNET_PATCH = 4
"""Side of the square of pixels that is one position of the UNet."""


def network_size(name: str, part: Literal["enc", "dec"]) -> ViTSize | UNetSize | MLPSize:
    """The size that an encoder's or decoder's name stands for: vit_b_enc, unet_patched, BottleneckMLP/B_6-Wi_1024.

    Raises ValueError naming those that exist.
    """
    if name.endswith(f"_{part}") and name[:-4] in VIT_SIZES:
        return VIT_SIZES[name[:-4]]
    if part == "dec" and name in UNET_SIZES:
        return UNET_SIZES[name]
    if found := re.fullmatch(r"BottleneckMLP/B_([1-9]\d*)-Wi_([1-9]\d*)", name):
        return MLPSize(int(found[1]), int(found[2]))
    known = [f"{size}_{part}" for size in VIT_SIZES] + (list(UNET_SIZES) if part == "dec" else [])
    raise ValueError(
        f"{part}_type {name!r} isn't known: choose {', '.join(known)} or BottleneckMLP/B_<blocks>-Wi_<width>"
    )


class VQConfig(BaseModel):
    """A VQ network: encoder, quantiser, decoder. Fields that other programs wrote beside these are ignored.

    n_channels: of the input; with `n_labels`, of the embedding of its class ids. n_labels: the input is a map of class
    ids below this, the output their logits. image_size: of the position embeddings, in pixels; other sizes
    interpolate them. image_size_enc, image_size_dec: the same for encoder and decoder, where they differ.
    patch_proj: squares of `patch_size` pixels become one token each; without it each cell of a feature map does.
    post_mlp: one more MLP after the encoder's blocks and the decoder's. out_conv: two ConvNeXt blocks on the output.

    quant_type: `lucid` (a codebook that follows the latents' moving average), `memcodes` (`num_codebooks` parts of the
    latent, each with learnt codes), `fsq` (finite scalar quantisation: `levels` per number of the latent) or `residual`
    (`num_codebooks` codebooks, each for what those before it leave). codebook_size: codes a position. norm_codes: of
    `lucid`: nearest by cosine, not by Euclidean distance. norm_latents: the latents' length doesn't count in the
    commitment loss. coef_ema_dead_code: codes that are chosen this many times more rarely than on average are replaced.
    kmeans_init: the codebook starts as the k-means of the first batch that is trained on.

    num_train_timesteps, prediction_type, beta_schedule, zero_terminal_snr, clip_sample, thresholding: of the diffusion
    that a UNet as `dec_type` decodes with, as diffusers' schedulers define them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    n_channels: int = Field(default=3, ge=1)
    n_labels: int | None = Field(default=None, ge=2)
    image_size: int = Field(default=224, ge=1)
    image_size_enc: int | None = Field(default=None, ge=1)
    image_size_dec: int | None = Field(default=None, ge=1)
    patch_size: int = Field(default=16, ge=1)
    patch_proj: bool = True
    enc_type: str = "vit_b_enc"
    dec_type: str = "vit_b_dec"
    post_mlp: bool = False
    out_conv: bool = False

    quant_type: Literal["lucid", "memcodes", "fsq", "residual"] = "lucid"
    codebook_size: int = Field(default=16384, ge=2)
    levels: tuple[int, ...] | None = None
    num_codebooks: int = Field(default=1, ge=1)
    latent_dim: int = Field(default=32, ge=1)
    norm_codes: bool = True
    norm_latents: bool = False
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    coef_ema_dead_code: float = Field(default=32.0, gt=0)
    commitment_weight: float = Field(default=1.0, ge=0)
    kmeans_init: bool = False

    num_train_timesteps: int = Field(default=1000, ge=2)
    prediction_type: Literal["sample", "epsilon", "v_prediction"] = "sample"
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    zero_terminal_snr: bool = True
    clip_sample: bool = False
    thresholding: bool = False

    @model_validator(mode="after")
    def _check(self) -> VQConfig:
        encoder, decoder = network_size(self.enc_type, "enc"), network_size(self.dec_type, "dec")
        if isinstance(encoder, ViTSize) or isinstance(decoder, ViTSize):
            sizes = {self.image_size, self.image_size_enc or self.image_size, self.image_size_dec or self.image_size}
            for size in sizes:
                if size % self.patch_size:
                    raise ValueError(f"image_size {size} isn't a multiple of patch_size {self.patch_size}")
        self._check_quantizer()
        if self.is_diffusion and self.n_labels is not None:
            raise ValueError(f"dec_type {self.dec_type} denoises numbers, and class ids (n_labels) aren't: take a ViT")
        if self.is_diffusion and not (isinstance(encoder, ViTSize) and self.patch_proj):
            raise ValueError(f"dec_type {self.dec_type} decodes to pixels: enc_type must be a ViT with patch_proj")
        if self.is_diffusion and self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "prediction_type epsilon can't sample with zero_terminal_snr, whose first step is noise alone: take "
                "sample or v_prediction"
            )
        return self

    def _check_quantizer(self) -> None:
        if (self.quant_type == "fsq") != (self.levels is not None):
            raise ValueError("`levels` are for quant_type fsq, which needs them")
        if self.levels is not None:
            if not self.levels or min(self.levels) < 3:
                raise ValueError(f"levels {self.levels}: each must be at least 3")
            if math.prod(self.levels) != self.codebook_size or len(self.levels) != self.latent_dim:
                raise ValueError(
                    f"levels {self.levels} make codebook_size {math.prod(self.levels)} and latent_dim "
                    f"{len(self.levels)}, not {self.codebook_size} and {self.latent_dim}"
                )
        if self.quant_type in ("lucid", "fsq") and self.num_codebooks != 1:
            raise ValueError(f"quant_type {self.quant_type} has one codebook, not num_codebooks {self.num_codebooks}")
        if self.quant_type == "memcodes" and self.latent_dim % self.num_codebooks:
            raise ValueError(f"latent_dim {self.latent_dim} isn't a multiple of num_codebooks {self.num_codebooks}")

    @property
    def is_diffusion(self) -> bool:
        """Whether the decoder is a UNet that denoises."""
        return self.dec_type in UNET_SIZES

    @property
    def vocabulary(self) -> int:
        """Codes that one token can be: ids lie in [0, vocabulary)."""
        return self.codebook_size

    @property
    def tokens_per_cell(self) -> int:
        """Tokens at each position of the grid."""
        return self.num_codebooks

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tokens for an input of that size. Raises ValueError where patches don't divide it."""
        if not self.patch_proj or not isinstance(network_size(self.enc_type, "enc"), ViTSize):
            return height, width
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"an input of {height}x{width} can't be cut into patches of {self.patch_size} pixels")
        return height // self.patch_size, width // self.patch_size
