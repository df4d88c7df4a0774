"""From logits to tokens: guidance, what is left out, and the draw. Pure functions of tensors (..., vocabulary)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

GREEDY = 1e-10
"""A temperature up to this takes the likeliest token."""


def guided(base: torch.Tensor, conditions: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """base + the sum of weight * (condition - base), all (..., vocabulary): classifier-free guidance with one condition
    (Ho and Salimans 2022), composed guidance with several (Liu et al. 2022).

    Raises ValueError where there aren't as many weights as conditions.
    """
    if len(conditions) != len(weights):
        raise ValueError(f"{len(weights)} weights for {len(conditions)} conditions")
    return base + sum((weight * (one - base) for one, weight in zip(conditions, weights, strict=True)), base * 0)


def kept(logits: torch.Tensor, top_k: float = 0, top_p: float = 0.0) -> torch.Tensor:
    """bool (..., vocabulary): what may be drawn. top_k: an int is the number of likeliest tokens, ties at the last
    included, a float their share of the vocabulary, at least one. top_p: the likeliest until their probabilities come
    to more than that (nucleus sampling, Holtzman et al. 2020). 0 of either leaves nothing out.

    Probabilities for top_p are those of what top_k left, before the temperature, as ml-4m's are.
    """
    stays = torch.ones_like(logits, dtype=torch.bool)
    if top_k:
        number = int(top_k * logits.shape[-1]) if isinstance(top_k, float) else top_k
        least = logits.topk(min(max(number, 1), logits.shape[-1]), dim=-1).values[..., -1:]
        stays = logits >= least
    if 0 < top_p < 1:
        found = logits.masked_fill(~stays, -torch.inf).softmax(dim=-1)
        ordered, places = found.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered
        within = before <= top_p
        within[..., 0] = True
        stays = stays & torch.zeros_like(stays).scatter(-1, places, within)
    return stays


def probabilities(logits: torch.Tensor, temperature: float, top_k: float = 0, top_p: float = 0.0) -> torch.Tensor:
    """float32 (..., vocabulary), of each token. A temperature of nearly 0 gives the likeliest all of it."""
    logits = logits.float()
    if abs(temperature) <= GREEDY:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    return (logits.masked_fill(~kept(logits, top_k, top_p), -torch.inf) / temperature).softmax(dim=-1)


def drawn(chances: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """int64 (...): a token by its probability. chances: (..., vocabulary); uniform: float64 (...) in (0, 1). A token
    without a chance is never drawn."""
    sums = chances.double().cumsum(dim=-1)
    reached = uniform.to(sums.device)[..., None] * sums[..., -1:]
    return torch.searchsorted(sums, reached, right=True).squeeze(-1)
