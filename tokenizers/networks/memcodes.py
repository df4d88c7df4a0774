"""Memcodes: codes that are learnt by gradients and chosen by attention, after NWT (arXiv 2106.04283)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .quantizers import Quantized, Quantizer, in_float32, map_of, place_of_best, rows_at_once, rows_of, straight_through


class Memcodes(Quantizer):
    """Learnt codes for each part of the latent, chosen by attention: a key and a value are linear in each code.

    Training samples the code by a hard Gumbel softmax (arXiv 1611.01144) of the scores at temperature 1, through which
    codes, keys and values learn; its loss is zero. Otherwise the best code is taken.
    """

    def __init__(self, codes: int, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.codes = nn.Parameter(torch.randn(heads, codes, dim // heads))
        self.to_k = _HeadLinear(heads, dim // heads)
        self.to_v = _HeadLinear(heads, dim // heads)

    @torch.no_grad()
    def tokenize(self, latents: torch.Tensor) -> torch.Tensor:
        with in_float32(latents):
            # Keys are linear in the codes, so the latents can be brought to the codes instead: there are fewer of them.
            queries, codes = self._parts(latents) @ self.to_k.weight.transpose(1, 2), self.codes.transpose(1, 2)
            parts = queries.split(rows_at_once(self.codes[..., 0].numel(), latents.device), dim=1)
            tokens = torch.cat([place_of_best(part @ codes) for part in parts], dim=1)
            return self._tokens(tokens, latents)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        batch, height, width = len(tokens), *tokens.shape[-2:]
        heads = torch.arange(self.heads, device=tokens.device)[None, :, None]
        with in_float32(self.codes):
            codes = self.to_v(self.codes)[heads, tokens.reshape(batch, self.heads, -1)]
        return codes.transpose(2, 3).reshape(batch, -1, height, width)

    def unquantized(self, latents: torch.Tensor) -> torch.Tensor:
        """The mean of the values as the softmax of the scores weighs them, of which training takes samples."""
        with in_float32(latents):
            scores = self._parts(latents) @ self.to_k(self.codes).transpose(1, 2)
            return map_of((scores.softmax(2) @ self.to_v(self.codes)).transpose(0, 1).flatten(1), latents)

    def forward(self, latents: torch.Tensor) -> Quantized:
        zero = torch.zeros((), device=latents.device)
        if not self.training:
            tokens = self.tokenize(latents)
            return Quantized(self.embed(tokens), tokens, zero)
        with in_float32(latents):
            scores = self._parts(latents) @ self.to_k(self.codes).transpose(1, 2)
            noise = -torch.empty(scores.shape).exponential_().log().to(scores.device)
            chances = (scores + noise).softmax(2)
            tokens = chances.argmax(2)
            choice = straight_through(chances, functional.one_hot(tokens, chances.shape[2]).float())
            codes = (choice @ self.to_v(self.codes)).transpose(0, 1).flatten(1)
            return Quantized(map_of(codes, latents), self._tokens(tokens, latents), zero)

    def _parts(self, latents: torch.Tensor) -> torch.Tensor:
        """float32 (heads, n, dim / heads), scaled as in attention."""
        parts = rows_of(latents).unflatten(1, (self.heads, -1)).transpose(0, 1)
        return parts * parts.shape[2] ** -0.5

    def _tokens(self, tokens: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """(heads, n) to (batch, heads, rows, columns), or (batch, rows, columns) of one head."""
        tokens = map_of(tokens.T, like)
        return tokens.squeeze(1) if self.heads == 1 else tokens


class _HeadLinear(nn.Module):
    """A linear map for each head: (heads, n, dim) to the same."""

    def __init__(self, heads: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, dim, dim).uniform_(-1, 1) * (3 / dim) ** 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight
