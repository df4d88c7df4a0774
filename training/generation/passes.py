"""The passes of a network that one step of generation takes: of what is known, without its conditions, with each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..model.blocks import Cache
from ..model.fourm import FourM
from ..model.tokens import Tokens
from .sampling import guided
from .state import Known, State


@dataclass(frozen=True)
class Guidance:
    """States whose logits become one: base + the sum of weight * (condition - base). Without conditions base alone."""

    base: State
    conditions: tuple[State, ...] = ()
    weights: tuple[float, ...] = ()

    def having(self, name: str, known: Known) -> Guidance:
        """With this in each state."""
        states = [one.having(name, known) for one in (self.base, *self.conditions)]
        return Guidance(states[0], tuple(states[1:]), self.weights)


class Passes:
    """The encoder's output of each state, computed once, for one target or one step of it."""

    def __init__(self, model: FourM, guidance: Guidance) -> None:
        self._model, self._weights = model, guidance.weights
        device = model.mask_token.device
        encoded = []
        for state in (guidance.base, *guidance.conditions):
            arrays = {name: one.to(device) for name, one in state.arrays.items()}
            encoded.append(model.encode(state.inputs(model.config).to(device), arrays))
        self._contexts = [(model.context(one), one.used) for one in encoded]
        self._caches: list[list[Cache]] | None = None

    def cached(self) -> Passes:
        """From now on what was decoded is kept: each call gives the tokens that are new."""
        self._caches = [[Cache() for _ in self._model.decoder] for _ in self._contexts]
        return self

    def logits(self, targets: Tokens, modality: int) -> torch.Tensor:
        """float32 (n, l, vocabulary) on the model's device, zeros where no place is used. targets: of one modality."""
        name = self._model.config.names[modality]
        targets = targets.to(self._model.mask_token.device)
        found = []
        for place, (context, used) in enumerate(self._contexts):
            caches = None if self._caches is None else self._caches[place]
            decoded = self._model.decode(targets, context, used, caches)
            rows = dict(self._model.logits(decoded, targets))[name].float()
            flat = rows.new_zeros((targets.used.numel(), rows.shape[-1])).index_copy(0, targets.order, rows)
            found.append(flat.view(*targets.used.shape, -1))
        return guided(found[0], found[1:], self._weights)


def slots(model: FourM, modality: int, places: torch.Tensor, wanted: torch.Tensor) -> Tokens:
    """Places of an image, int64 (n, l), that are to be said where `wanted`, bool (n, l), is true."""
    number = torch.where(wanted, modality, -1)
    return Tokens.of(model.config, torch.full_like(places, -1), places, number)


def words(model: FourM, modality: int, ids: Sequence[int], position: int) -> Tokens:
    """The token of each sample at one position of a text."""
    column = torch.tensor(ids)[:, None]
    return Tokens.of(model.config, column, torch.full_like(column, position), torch.full_like(column, modality))
