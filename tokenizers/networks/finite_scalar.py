"""Finite scalar quantisation (arXiv 2309.15505): each number of the latent is rounded to one of a few levels.

There is no codebook to learn, and none to collapse: the code is the point of the grid, its index the token.
"""

from __future__ import annotations

import math

import torch

from .quantizers import Quantized, Quantizer, in_float32, map_of, rows_of

_MARGIN = 1e-3
"""By how much the bounded numbers may pass the outermost levels, so that these are reached by finite latents."""


class FiniteScalarQuantizer(Quantizer):
    """levels: of each number of the latent, at least 3. Its loss is zero; codes lie in [-1, 1]."""

    levels: torch.Tensor
    basis: torch.Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        basis = [math.prod(levels[:place]) for place in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("basis", torch.tensor(basis), persistent=False)

    def tokenize(self, latents: torch.Tensor) -> torch.Tensor:
        with in_float32(latents):
            steps = self.bounded(rows_of(latents)).round()
            return map_of(self._index(steps), latents).squeeze(1)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        steps = tokens[:, None] // self.basis.view(-1, 1, 1) % self.levels.view(-1, 1, 1)
        half = (self.levels // 2).view(-1, 1, 1)
        return (steps - half) / half

    def unquantized(self, latents: torch.Tensor) -> torch.Tensor:
        with in_float32(latents):
            return map_of(self.bounded(rows_of(latents)) / (self.levels // 2), latents)

    def forward(self, latents: torch.Tensor) -> Quantized:
        with in_float32(latents):
            bounded = self.bounded(rows_of(latents))
            steps = bounded.round()
            tokens = map_of(self._index(steps.detach()), latents).squeeze(1)
            codes = (bounded + (steps - bounded).detach() if self.training else steps) / (self.levels // 2)
            return Quantized(map_of(codes, latents), tokens, torch.zeros((), device=latents.device))

    def bounded(self, rows: torch.Tensor) -> torch.Tensor:
        """float32 (n, dim), monotonous in the latents, which rounds to the whole numbers from -(levels // 2) on.

        Zero stays zero. With an even number of levels the range is shifted by half a step, which the arctangent
        undoes at zero.
        """
        half = (self.levels - 1) * (1 + _MARGIN) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return (rows + (offset / half).atanh()).tanh() * half - offset

    def _index(self, steps: torch.Tensor) -> torch.Tensor:
        """int64 (n,): the grid's points by number, the first number of the latent counting fastest."""
        return ((steps.long() + self.levels // 2) * self.basis).sum(1)
