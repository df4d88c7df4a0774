"""The transformer blocks of 4M: attention, SwiGLU and norms without biases (Mizrahi et al. 2023, arXiv 2312.06647)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from .config import ModelConfig

_EPS = 1e-6


@dataclass
class Cache:
    """Keys and values of a decoder block, so that a text is decoded token by token: those of the context, and of what
    was decoded so far. Each (n, heads, tokens, dim / heads)."""

    context: tuple[torch.Tensor, torch.Tensor] | None = None
    decoded: tuple[torch.Tensor, torch.Tensor] | None = None

    def with_decoded(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """These behind those so far, which they then belong to."""
        if self.decoded is not None:
            keys, values = (torch.cat(pair, dim=2) for pair in zip(self.decoded, (keys, values), strict=True))
        self.decoded = keys, values
        return self.decoded


class Norm(nn.Module):
    """LayerNorm without a bias; the zeros that stand for it are in the published checkpoints."""

    bias: torch.Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.register_buffer("bias", torch.zeros(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = self.bias.to(self.weight.dtype)  # FSDP2 casts parameters alone
        return functional.layer_norm(x, list(self.weight.shape), self.weight, bias, _EPS)


class SwiGLU(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.dim, config.mlp_width, bias=False)
        self.fc2 = nn.Linear(config.mlp_width, config.dim, bias=False)
        self.fc3 = nn.Linear(config.dim, config.mlp_width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.silu(self.fc1(x)) * self.fc3(x))


class _Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.proj = nn.Linear(config.dim, config.dim, bias=False)
        self.q_norm = Norm(config.dim // config.num_heads) if config.qk_norm else nn.Identity()
        self.k_norm = Norm(config.dim // config.num_heads) if config.qk_norm else nn.Identity()

    def _split(self, x: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        """(n, tokens, parts * dim) to `parts` of (n, heads, tokens, dim / heads)."""
        return x.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def _attended(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Heads side by side again: (n, tokens, dim)."""
        query, key = query.to(value.dtype), key.to(value.dtype)  # which norms make wider, under autocast
        x = functional.scaled_dot_product_attention(query, key, value, mask)
        return x.transpose(1, 2).flatten(2)


class SelfAttention(_Attention):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=False)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, cache: Cache | None = None) -> torch.Tensor:
        """x: (n, tokens, dim). mask: bool, broadcast to (n, heads, tokens, keys), True where a key is seen."""
        query, key, value = self._split(self.qkv(x), 3)
        query, key = self.q_norm(query), self.k_norm(key)
        if cache is not None:
            key, value = cache.with_decoded(key, value)
        return self.proj(self._attended(query, key, value, mask))


class CrossAttention(_Attention):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.q = nn.Linear(config.dim, config.dim, bias=False)
        self.kv = nn.Linear(config.dim, 2 * config.dim, bias=False)

    def keys_and_values(self, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        key, value = self._split(self.kv(context), 2)
        return self.k_norm(key), value

    def forward(self, x: torch.Tensor, context: tuple[torch.Tensor, torch.Tensor], used: torch.Tensor) -> torch.Tensor:
        """x: (n, tokens, dim). context: its keys and values. used: bool (n, context tokens). Rows whose context is
        empty get zeros."""
        (query,) = self._split(self.q(x), 1)
        x = self._attended(self.q_norm(query), *context, key_mask(used))
        return self.proj(x * used.any(dim=1)[:, None, None])


def key_mask(used: torch.Tensor) -> torch.Tensor:
    """bool (n, 1, 1, tokens): the keys that are seen; all of them where none is used, since nothing is no number."""
    return (used | ~used.any(dim=1, keepdim=True))[:, None, None]


class EncoderBlock(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(config.dim), Norm(config.dim)
        self.attn = SelfAttention(config)
        self.mlp = SwiGLU(config)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(config.dim), Norm(config.dim)
        self.query_norm, self.context_norm = Norm(config.dim), Norm(config.dim)
        self.self_attn = SelfAttention(config)
        self.cross_attn = CrossAttention(config)
        self.mlp = SwiGLU(config)

    def forward(
        self,
        x: torch.Tensor,
        context: torch.Tensor,
        mask: torch.Tensor | None,
        used: torch.Tensor,
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """x: (n, tokens, dim), with a cache those that are new. context: (n, context tokens, dim). mask: as of
        SelfAttention; used: as of CrossAttention. A cache is filled on the way, and spares what it has."""
        x = x + self.self_attn(self.norm1(x), mask, cache)
        pairs = cache.context if cache is not None else None
        if pairs is None:
            pairs = self.cross_attn.keys_and_values(self.context_norm(context))
        if cache is not None:
            cache.context = pairs
        x = x + self.cross_attn(self.query_norm(x), pairs, used)
        return x + self.mlp(self.norm2(x))
