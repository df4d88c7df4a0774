"""MLPs of residual bottlenecks for vectors (arXiv 2306.13575), with the parameter names of the 4M tokenizers."""

from __future__ import annotations

import torch
from torch import nn

from .vq_config import MLPSize


class BottleneckMLP(nn.Module):
    """(batch, inputs, height, width) to (batch, outputs, height, width), each position on its own."""

    def __init__(self, inputs: int, outputs: int, size: MLPSize) -> None:
        super().__init__()
        self.linear_in = nn.Linear(inputs, size.width)
        self.linear_out = nn.Linear(size.width, outputs)
        self.blocks = nn.ModuleList(Bottleneck(size.width) for _ in range(size.blocks))
        self.layernorms = nn.ModuleList(nn.LayerNorm(size.width) for _ in range(size.blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear_in(x.permute(0, 2, 3, 1))
        for block, norm in zip(self.blocks, self.layernorms, strict=True):
            x = x + block(norm(x))
        return self.linear_out(x).permute(0, 3, 1, 2)


class Bottleneck(nn.Module):
    """To four times the width and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)
