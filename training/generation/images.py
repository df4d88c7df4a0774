"""An image's tokens, several in each step: those that the network is surest of (MaskGIT), or those at chance (ROAR)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..model.fourm import FourM
from .draws import Draws
from .passes import Guidance, Passes, slots
from .sampling import GREEDY, probabilities

ImageScheme = Literal["maskgit", "roar"]


@dataclass(frozen=True)
class Step:
    """How many tokens are decided, and how freely they are drawn."""

    count: int
    temperature: float


@dataclass(frozen=True)
class Decided:
    """What a step came to. guidance: what is known now. places: int64 (n, l), those that were looked at, -1 beyond the
    last of a sample. ids, confidence: (n, l), what was drawn for each, and how likely it was. chosen: bool (n, l),
    which of them were kept. logits: float32 (n, l, vocabulary), guided."""

    guidance: Guidance
    places: torch.Tensor
    ids: torch.Tensor
    confidence: torch.Tensor
    chosen: torch.Tensor
    logits: torch.Tensor


def image_steps(
    model: FourM,
    guidance: Guidance,
    name: str,
    scheme: ImageScheme,
    steps: Sequence[Step],
    draws: Draws,
    top_k: float = 0,
    top_p: float = 0.0,
) -> Iterator[Decided]:
    """Decides, step by step, the places of an image that each state knows nothing of; all states know the same ones.

    MaskGIT (Chang et al. 2022): a token is drawn for all places that are left, and the surest are kept. ROAR (4M's
    random order): tokens are drawn for places at chance, and kept. A sample of which fewer are left has those decided.
    """
    modality = model.config.names.index(name)
    for number, step in enumerate(steps):
        known = guidance.base.known[name]
        order = draws.order(name, number, known.used.shape[1]) if scheme == "roar" else None
        places = _left(known.used, order, step.count if scheme == "roar" else None)
        wanted = places >= 0
        logits = Passes(model, guidance).logits(slots(model, modality, places.clamp(min=0), wanted), modality)
        chances = probabilities(logits, step.temperature, top_k, top_p).cpu()
        ids = draws.tokens(name, number, chances, places)
        sure = probabilities(logits, 1.0).cpu() if step.temperature <= GREEDY else chances  # not 1 for all of them
        confidence = sure.gather(2, ids[..., None])[..., 0]
        chosen = wanted & _surest(confidence.masked_fill(~wanted, -1.0), step.count)
        guidance = guidance.having(name, known.written(*_spread(known.used, places, ids, chosen)))
        yield Decided(guidance, places, ids, confidence, chosen, logits)


def _left(used: torch.Tensor, order: torch.Tensor | None, most: int | None) -> torch.Tensor:
    """int64 (n, l): the places that aren't used, in this order or in their own, at most so many; -1 fills up."""
    places = torch.arange(used.shape[1]).expand(used.shape) if order is None else order
    there = used.gather(1, places)
    moved = torch.argsort(there, dim=1, stable=True)
    found = places.gather(1, moved).masked_fill(there.gather(1, moved), -1)
    return found[:, : min(int((found >= 0).sum(dim=1).max()), used.shape[1] if most is None else most)]


def _surest(confidence: torch.Tensor, count: int) -> torch.Tensor:
    """bool (n, l): the `count` highest of each row, the earlier of equal ones."""
    order = torch.argsort(confidence, dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(confidence, dtype=torch.bool).scatter(1, order, True)


def _spread(
    used: torch.Tensor, places: torch.Tensor, ids: torch.Tensor, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where in the image tokens were chosen, and which, each (n, places)."""
    rows = torch.arange(len(used))[:, None].expand(places.shape)[chosen]
    where, what = torch.zeros_like(used), torch.zeros(used.shape, dtype=torch.int64)
    where[rows, places[chosen]] = True
    what[rows, places[chosen]] = ids[chosen]
    return where, what
