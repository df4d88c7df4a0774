"""Vision transformers that turn maps into latents and latents into maps (Dosovitskiy et al. 2020, as in ViT-VQGAN,
arXiv 2110.04627, and 4M). Parameter names are those of the published 4M tokenizers."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .vq_config import ViTSize

LAYER_NORM_EPS = 1e-6
_MLP_RATIO = 4


class ViTEncoder(nn.Module):
    """(batch, channels, height, width) to (batch, width, rows, columns).

    channels: of the input. grid: side of the position embeddings' grid. patch: side of the squares that become one
    token, None where each cell already is one. post_mlp: one more MLP at the end, in float32.
    """

    def __init__(self, channels: int, size: ViTSize, grid: int, patch: int | None, post_mlp: bool) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(sincos_embedding(grid, size.width), requires_grad=False)
        self.proj = nn.Conv2d(channels, size.width, patch or 1, patch or 1)
        self.blocks = nn.Sequential(*(Block(size) for _ in range(size.blocks)))
        self.norm_mlp = nn.LayerNorm(size.width, LAYER_NORM_EPS) if post_mlp else None
        self.post_mlp = MLP(size.width, nn.Tanh()) if post_mlp else None
        _initialise(self)
        # A patch projection is a linear layer, and starts as one.
        nn.init.xavier_uniform_(self.proj.weight.view(size.width, -1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj(x)
        rows, columns = x.shape[2:]
        x = self.blocks(x.flatten(2).transpose(1, 2) + _resized(self.pos_emb, rows, columns))
        if self.post_mlp is not None and self.norm_mlp is not None:
            with torch.autocast(x.device.type, enabled=False):
                x = x.float()
                x = x + self.post_mlp(self.norm_mlp(x))
        return x.transpose(1, 2).unflatten(2, (rows, columns))


class ViTDecoder(nn.Module):
    """(batch, width, rows, columns) to (batch, channels, height, width). Arguments as of ViTEncoder.

    out_conv: two ConvNeXt blocks on the output, against the borders of the patches.
    """

    def __init__(
        self, channels: int, size: ViTSize, grid: int, patch: int | None, post_mlp: bool, out_conv: bool
    ) -> None:
        super().__init__()
        self.patch = patch or 1
        self.pos_emb = nn.Parameter(sincos_embedding(grid, size.width), requires_grad=False)
        self.blocks = nn.Sequential(*(Block(size) for _ in range(size.blocks)))
        self.norm_mlp = nn.LayerNorm(size.width, LAYER_NORM_EPS) if post_mlp else None
        self.post_mlp = MLP(size.width, nn.Tanh()) if post_mlp else None
        self.out_proj = nn.Linear(size.width, channels * self.patch**2)
        self.out_conv = nn.Sequential(ConvNeXtBlock(channels), ConvNeXtBlock(channels)) if out_conv else None
        _initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, columns = x.shape[2:]
        x = self.blocks(x.flatten(2).transpose(1, 2) + _resized(self.pos_emb, rows, columns))
        if self.post_mlp is not None and self.norm_mlp is not None:
            x = x + self.post_mlp(self.norm_mlp(x))
        x = self.out_proj(x).transpose(1, 2).unflatten(2, (rows, columns))
        x = functional.pixel_shuffle(x, self.patch)
        return x if self.out_conv is None else self.out_conv(x)


class Block(nn.Module):
    """Attention, then an MLP, each on the normalised tokens and added to them."""

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.width, LAYER_NORM_EPS)
        self.attn = Attention(size)
        self.norm2 = nn.LayerNorm(size.width, LAYER_NORM_EPS)
        self.mlp = MLP(size.width, nn.GELU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Attention(nn.Module):
    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.proj = nn.Linear(size.width, size.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(x.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, _MLP_RATIO * width)
        self.act = activation
        self.fc2 = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(x)))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7 convolution and a pointwise MLP, scaled by `gamma` and added (arXiv 2201.03545)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, LAYER_NORM_EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        change = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        change = self.gamma * self.pwconv2(self.act(self.pwconv1(change)))
        return x + change.permute(0, 3, 1, 2)


def sincos_embedding(grid: int, width: int) -> torch.Tensor:
    """float32 (1, width, grid, grid): sines and cosines of row and column at width / 4 frequencies (MoCo v3).

    Quarters: sine of the row, cosine of the row, sine of the column, cosine of the column.
    """
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float32) / (width // 4))
    angles = torch.outer(torch.arange(grid, dtype=torch.float32), frequencies).T  # (width / 4, grid)
    waves = torch.cat([angles.sin(), angles.cos()])
    by_row, by_column = waves[:, :, None].expand(-1, -1, grid), waves[:, None, :].expand(-1, grid, -1)
    return torch.cat([by_row, by_column])[None].contiguous()


def _resized(embedding: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """(1, width, grid, grid) to (1, rows * columns, width)."""
    if tuple(embedding.shape[2:]) != (rows, columns):
        embedding = functional.interpolate(embedding, (rows, columns), mode="bicubic", align_corners=False)
    return embedding.flatten(2).transpose(1, 2)


def _initialise(network: nn.Module) -> None:
    """Xavier's uniform start for linear layers (for queries, keys and values each on its own), biases at zero."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):
            for weight in module.weight.chunk(3) if name.endswith("qkv") else [module.weight]:
                nn.init.xavier_uniform_(weight)
            nn.init.zeros_(module.bias)
