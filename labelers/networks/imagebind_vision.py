"""ImageBind's vision tower (Girdhar et al. 2023, arXiv 2305.05665), written from the names and shapes of its tensors.

The modules are nested so that their parameters are called as in imagebind_huge.pth.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, scaled_dot_product_attention

EPS = 1e-6
"""Of all layer norms."""


class VisionTower(nn.Module):
    """Normalised images, float32 (batch, 3, grid * patch, grid * patch), to the tokens after the last block.

    No norm follows the last block: it belongs to the head, which makes the embedding. The stem takes one picture, where
    the reference's takes a film of two: its kernel is theirs summed over time.

    width, depth, heads: of the transformer. patch: its pixels a side. grid: patches a side. out: the embedding's size.
    """

    def __init__(self, width: int, depth: int, patch: int, grid: int, out: int, heads: int) -> None:
        super().__init__()
        stem = nn.Conv2d(3, width, patch, patch, bias=False)
        preprocessor = nn.ModuleDict(
            {
                "rgbt_stem": nn.ModuleDict({"proj": nn.Sequential(nn.Identity(), stem)}),
                "pos_embedding_helper": _parameters(pos_embed=(1, 1 + grid**2, width)),
            }
        )
        preprocessor.register_parameter("cls_token", nn.Parameter(torch.zeros(1, 1, width)))
        trunk = nn.ModuleDict(
            {
                "pre_transformer_layer": nn.Sequential(nn.LayerNorm(width, EPS)),
                "blocks": nn.Sequential(*(Block(width, heads) for _ in range(depth))),
            }
        )
        head = nn.Sequential(nn.LayerNorm(width, EPS), nn.Identity(), nn.Linear(width, out, bias=False))
        self.modality_preprocessors = nn.ModuleDict({"vision": preprocessor})
        self.modality_trunks = nn.ModuleDict({"vision": trunk})
        self.modality_heads = nn.ModuleDict({"vision": head})

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Patch tokens (batch, grid * grid, width), row by row, and class tokens (batch, width)."""
        preprocessor: Any = self.modality_preprocessors["vision"]
        trunk: Any = self.modality_trunks["vision"]
        patches = preprocessor["rgbt_stem"]["proj"](images).flatten(2).transpose(1, 2)
        tokens = torch.cat([preprocessor.cls_token.expand(len(images), -1, -1), patches], dim=1)
        tokens = tokens + preprocessor["pos_embedding_helper"]["pos_embed"]
        tokens = trunk["blocks"](trunk["pre_transformer_layer"](tokens))
        return tokens[:, 1:], tokens[:, 0]

    def embed(self, class_tokens: Tensor) -> Tensor:
        """(batch, width) to the embedding that all of ImageBind's modalities share: (batch, out), of length 1."""
        return normalize(self.modality_heads["vision"](class_tokens), dim=-1)


class Block(nn.Module):
    """A pre-norm transformer block with exact GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, EPS)
        self.attn = Attention(width, heads)
        self.norm_2 = nn.LayerNorm(width, EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""
        tokens = tokens + self.attn(self.norm_1(tokens))
        return tokens + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm_2(tokens))))


class Attention(nn.Module):
    """Self-attention, its parameters called as nn.MultiheadAttention's: queries, keys and values in one projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""
        projected = linear(tokens, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out_proj(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def _parameters(**shapes: tuple[int, ...]) -> nn.ParameterDict:
    return nn.ParameterDict({name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()})
