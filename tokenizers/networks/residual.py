"""Residual vector quantisation: each codebook quantises what those before it leave (SoundStream, arXiv 2107.03312)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .quantizers import EMACodebook, Quantized, Quantizer, in_float32, map_of, rows_of, straight_through


class ResidualQuantizer(Quantizer):
    """The code is the sum of one code of each codebook, from coarse to fine.

    Tokens: (batch, codebooks, rows, columns); (batch, rows, columns) of one codebook. Its loss is the commitment loss
    of VectorQuantizer, the mean over the codebooks.
    """

    codebooks: list[EMACodebook]

    def __init__(self, codebooks: list[EMACodebook], commitment: float) -> None:
        super().__init__()
        modules: Any = nn.ModuleList(codebooks)
        self.codebooks = modules
        self.commitment = commitment

    @property
    def ema_codebooks(self) -> Sequence[EMACodebook]:
        return self.codebooks

    def tokenize(self, latents: torch.Tensor) -> torch.Tensor:
        with in_float32(latents):
            rest, tokens = rows_of(latents), []
            for codebook in self.codebooks:
                tokens.append(codebook.nearest(rest))
                rest = rest - functional.embedding(tokens[-1], codebook.embed)
            return self._tokens(tokens, latents)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        levels = tokens.view(len(tokens), len(self.codebooks), *tokens.shape[-2:]).unbind(1)
        codes = [functional.embedding(level, book.embed) for level, book in zip(levels, self.codebooks, strict=True)]
        return torch.stack(codes).sum(0).permute(0, 3, 1, 2)

    def unquantized(self, latents: torch.Tensor) -> torch.Tensor:
        return latents.float()

    def forward(self, latents: torch.Tensor) -> Quantized:
        with in_float32(latents):
            rows = rows_of(latents)
            rest, tokens, losses = rows, [], []
            for codebook in self.codebooks:
                codes, level = codebook(rest)
                losses.append(functional.mse_loss(rest, codes))
                tokens.append(level)
                rest = rest - codes
            codes = (rows - rest).detach()
            if self.training:
                codes = straight_through(rows, codes)
            loss = self.commitment * torch.stack(losses).mean()
            return Quantized(map_of(codes, latents), self._tokens(tokens, latents), loss)

    def _tokens(self, tokens: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
        stacked = map_of(torch.stack(tokens, dim=1), like)
        return stacked.squeeze(1) if len(tokens) == 1 else stacked
