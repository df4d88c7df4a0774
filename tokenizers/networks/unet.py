"""The UNet of ADM (Dhariwal & Nichol 2021, arXiv 2105.05233) on patches of pixels, conditioned on a map of codes.

Parameter names are those of the published 4M tokenizers.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from .vq_config import UNET_PATCH, UNetSize


class PatchedUNet(nn.Module):
    """Denoises images (batch, channels, height, width) under a map (batch, condition, rows, columns).

    Each square of UNET_PATCH pixels is one position (patched diffusion, arXiv 2207.04316); the map is enlarged to the
    positions, each the copy of its nearest cell, and concatenated. Each level halves the resolution on the way in and
    doubles it on the way out, where the features that the way in left are concatenated.
    """

    def __init__(self, channels: int, condition: int, size: UNetSize) -> None:
        super().__init__()
        self.width = size.channels
        times = 4 * size.channels
        self.time_embed = nn.Sequential(nn.Linear(size.channels, times), nn.SiLU(), nn.Linear(times, times))
        widths = [multiplier * size.channels for multiplier in size.multipliers]
        pixels = channels * UNET_PATCH**2

        last = widths[0]
        left = [last]  # channels of what each input block leaves for an output block
        self.input_blocks = nn.ModuleList([Timed(_conv(pixels + condition, last))])
        for level, width in enumerate(widths):
            attend = 2**level in size.attention
            for _ in range(size.blocks):
                self.input_blocks.append(Timed(ResBlock(last, width, times), *_attention(width, attend)))
                last = width
                left.append(last)
            if level + 1 < len(widths):
                self.input_blocks.append(Timed(Downsample(last)))
                left.append(last)

        self.middle_block = Timed(ResBlock(last, last, times), AttentionBlock(last), ResBlock(last, last, times))

        self.output_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            attend = 2**level in size.attention
            for place in range(size.blocks + 1):
                up = [Upsample(width)] if level and place == size.blocks else []
                block = Timed(ResBlock(last + left.pop(), width, times), *_attention(width, attend), *up)
                self.output_blocks.append(block)
                last = width
        self.out = nn.Sequential(GroupNorm(last), nn.SiLU(), _zeroed(_conv(last, pixels)))

    def forward(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """What the network is trained to predict, shaped like `noised`. timesteps: int64 (batch,)."""
        times = self.time_embed(timestep_embedding(timesteps, self.width))
        x = functional.pixel_unshuffle(noised, UNET_PATCH)
        x = torch.cat([x, functional.interpolate(condition, x.shape[2:], mode="nearest").to(x.dtype)], dim=1)
        left = []
        for block in self.input_blocks:
            x = block(x, times)
            left.append(x)
        x = self.middle_block(x, times)
        for block in self.output_blocks:
            x = block(torch.cat([x, left.pop()], dim=1), times)
        return functional.pixel_shuffle(self.out(x), UNET_PATCH)


class Timed(nn.Sequential):
    """Layers one after the other, of which residual blocks take the embedding of the time as well."""

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        for layer in self:
            x = layer(x, times) if isinstance(layer, ResBlock) else layer(x)
        return x


class ResBlock(nn.Module):
    """Two convolutions with the time's embedding added between them; (batch, inputs, ...) to (batch, outputs, ...)."""

    def __init__(self, inputs: int, outputs: int, times: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(GroupNorm(inputs), nn.SiLU(), _conv(inputs, outputs))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(times, outputs))
        # The identity keeps the place of the dropout that published state dicts count.
        self.out_layers = nn.Sequential(GroupNorm(outputs), nn.SiLU(), nn.Identity(), _zeroed(_conv(outputs, outputs)))
        self.skip_connection = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        change = self.in_layers(x) + self.emb_layers(times)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(change)


class AttentionBlock(nn.Module):
    """Self-attention of one head over all positions, added to them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = _zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positions = x.flatten(2)
        query, key, value = self.qkv(self.norm(positions)).transpose(1, 2).chunk(3, dim=2)
        attended = functional.scaled_dot_product_attention(query, key, value)
        return (positions + self.proj_out(attended.transpose(1, 2))).view_as(x)


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(functional.interpolate(x, scale_factor=2, mode="nearest"))


class GroupNorm(nn.GroupNorm):
    """Normalises 32 groups of channels, in float32."""

    def __init__(self, channels: int) -> None:
        super().__init__(32, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float()).to(x.dtype)


def timestep_embedding(timesteps: torch.Tensor, width: int) -> torch.Tensor:
    """float32 (batch, width): cosines, then sines, of the time at width / 2 frequencies from 1 down to 1/10000."""
    half = width // 2
    places = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps[:, None].float() * torch.exp(-math.log(10_000) / half * places)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _zeroed(layer: nn.Conv1d | nn.Conv2d) -> nn.Conv1d | nn.Conv2d:
    """The layer starting at zero, so that its block starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _attention(channels: int, wanted: bool) -> list[nn.Module]:
    return [AttentionBlock(channels)] if wanted else []
