"""VQ networks: an encoder, a quantiser between, and a decoder that rebuilds the input or denoises towards it."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from .bottleneck_mlp import BottleneckMLP
from .diffusion import DEFAULT_STEPS, noise_scheduler, noised, sample
from .finite_scalar import FiniteScalarQuantizer
from .memcodes import Memcodes
from .quantizers import EMACodebook, Quantizer, VectorQuantizer
from .residual import ResidualQuantizer
from .unet import PatchedUNet
from .vit import ViTDecoder, ViTEncoder
from .vq_config import MLPSize, UNetSize, ViTSize, VQConfig, network_size

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler


class VQOutput(NamedTuple):
    """What a training step needs. prediction: float, what the decoder says. target: what it should have said, like the
    prediction, or the class ids int64 (batch, height, width) of logits. tokens: as `tokenize` gives them.
    quantizer_loss: scalar, to be added to the loss between prediction and target."""

    prediction: torch.Tensor
    target: torch.Tensor
    tokens: torch.Tensor
    quantizer_loss: torch.Tensor


def build(config: VQConfig) -> VQ:
    """The network with random weights, from torch's generator."""
    return DiVAE(config) if config.is_diffusion else VQVAE(config)


class VQ(nn.Module):
    """Input x: float32 (batch, channels, height, width): pixels or feature maps, vectors as (batch, dim, 1, 1); with
    `n_labels` class ids int64 (batch, height, width). Tokens: int64 (batch, rows, columns), or (batch, tokens per cell,
    rows, columns) where a cell has several.
    """

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.cls_emb = None if config.n_labels is None else nn.Embedding(config.n_labels, config.n_channels)
        self.encoder, width = _encoder(config)
        self.quant_proj = nn.Conv2d(width, config.latent_dim, 1)
        self.quantize = _quantizer(config)

    def latents(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, latent_dim, rows, columns), before they are quantised."""
        if self.cls_emb is not None:
            x = self.cls_emb(x).permute(0, 3, 1, 2)
        return self.quant_proj(self.encoder(x))

    @torch.inference_mode()
    def tokenize(self, x: torch.Tensor) -> torch.Tensor:
        return self.quantize.tokenize(self.latents(x))

    def tokens_to_embedding(self, tokens: torch.Tensor) -> torch.Tensor:
        """float32 (batch, latent_dim, rows, columns): the tokens' codes."""
        return self.quantize.embed(tokens)

    @torch.inference_mode()
    def decode_tokens(
        self, tokens: torch.Tensor, generator: torch.Generator | None = None, steps: int | None = None
    ) -> torch.Tensor:
        """(batch, channels, height, width), or logits (batch, n_labels, height, width).

        generator, steps: of a diffusion decoder; None takes torch's generator and its default number of steps.
        """
        return self.decode_codes(self.tokens_to_embedding(tokens), generator, steps)

    @torch.inference_mode()
    def reconstruct_unquantised(
        self, x: torch.Tensor, generator: torch.Generator | None = None, steps: int | None = None
    ) -> torch.Tensor:
        """What the decoder makes of `x` if nothing is lost between: the bound of any codebook for this network."""
        return self.decode_codes(self.quantize.unquantized(self.latents(x)), generator, steps)

    @abstractmethod
    def decode_codes(
        self, codes: torch.Tensor, generator: torch.Generator | None = None, steps: int | None = None
    ) -> torch.Tensor:
        """As `decode_tokens`, from what the tokens stand for: float32 (batch, latent_dim, rows, columns)."""

    @abstractmethod
    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> VQOutput:
        """The pass of a training step. generator: of a diffusion decoder's noise; None takes torch's."""


class VQVAE(VQ):
    """The decoder rebuilds the input from the codes in one pass."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__(config)
        self.decoder, width = _decoder(config)
        self.post_quant_proj = nn.Conv2d(config.latent_dim, width, 1)

    def decode_codes(
        self, codes: torch.Tensor, generator: torch.Generator | None = None, steps: int | None = None
    ) -> torch.Tensor:
        return self.decoder(self.post_quant_proj(codes))

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> VQOutput:
        quantized = self.quantize(self.latents(x))
        prediction = self.decode_codes(quantized.codes)
        return VQOutput(prediction, x, quantized.tokens, quantized.loss)


class DiVAE(VQ):
    """The decoder is a UNet that denoises under the codes (DiVAE, arXiv 2206.00386).

    Training and decoding need diffusers, tokenising doesn't.
    """

    def __init__(self, config: VQConfig) -> None:
        super().__init__(config)
        size = network_size(config.dec_type, "dec")
        assert isinstance(size, UNetSize)
        self.decoder = PatchedUNet(config.n_channels, config.latent_dim, size)

    @cached_property
    def scheduler(self) -> DDIMScheduler:
        return noise_scheduler(self.config)

    def decode_codes(
        self, codes: torch.Tensor, generator: torch.Generator | None = None, steps: int | None = None
    ) -> torch.Tensor:
        batch, _, rows, columns = codes.shape
        patch = self.config.patch_size
        device = "cpu" if generator is None else generator.device
        shape = batch, self.config.n_channels, rows * patch, columns * patch
        start = torch.randn(shape, generator=generator, device=device)
        return sample(
            self.scheduler,
            lambda images, timesteps: self.decoder(images, timesteps, codes),
            start.to(codes.device),
            steps or DEFAULT_STEPS,
        )

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> VQOutput:
        quantized = self.quantize(self.latents(x))
        images, timesteps, target = noised(self.scheduler, x, generator)
        prediction = self.decoder(images, timesteps, quantized.codes)
        return VQOutput(prediction, target, quantized.tokens, quantized.loss)


def _encoder(config: VQConfig) -> tuple[nn.Module, int]:
    """The encoder, and how many channels it gives."""
    size = network_size(config.enc_type, "enc")
    if isinstance(size, MLPSize):
        return BottleneckMLP(config.n_channels, size.width, size), size.width
    assert isinstance(size, ViTSize)
    grid = (config.image_size_enc or config.image_size) // config.patch_size
    patch = config.patch_size if config.patch_proj else None
    return ViTEncoder(config.n_channels, size, grid, patch, config.post_mlp), size.width


def _decoder(config: VQConfig) -> tuple[nn.Module, int]:
    """The decoder that isn't a UNet, and how many channels it takes."""
    size = network_size(config.dec_type, "dec")
    assert not isinstance(size, UNetSize)
    channels = config.n_labels or config.n_channels
    if isinstance(size, MLPSize):
        return BottleneckMLP(size.width, channels, size), size.width
    grid = (config.image_size_dec or config.image_size) // config.patch_size
    patch = config.patch_size if config.patch_proj else None
    return ViTDecoder(channels, size, grid, patch, config.post_mlp, config.out_conv), size.width


def _quantizer(config: VQConfig) -> Quantizer:
    if config.quant_type == "memcodes":
        return Memcodes(config.codebook_size, config.latent_dim, config.num_codebooks)
    if config.quant_type == "fsq":
        assert config.levels is not None
        return FiniteScalarQuantizer(config.levels)
    if config.quant_type == "residual":
        codebooks = [_codebook(config, cosine=False) for _ in range(config.num_codebooks)]
        return ResidualQuantizer(codebooks, config.commitment_weight)
    return VectorQuantizer(_codebook(config, config.norm_codes), config.commitment_weight, config.norm_latents)


def _codebook(config: VQConfig, cosine: bool) -> EMACodebook:
    return EMACodebook(
        config.codebook_size,
        config.latent_dim,
        cosine=cosine,
        decay=config.ema_decay,
        dead_ratio=config.coef_ema_dead_code,
        kmeans=config.kmeans_init,
    )
