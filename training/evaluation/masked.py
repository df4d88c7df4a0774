"""Targets of one modality, masked alike, with tokens of the other modalities and without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data.batch import Batch
from ..data.loader import as_tensors
from ..data.masking import Scheme
from ..data.mixture import Masking
from ..data.schemes import named_schemes
from ..generation.state import packed
from ..model.config import ModelConfig
from ..model.tokens import Labels, Sides, Tokens
from .opened import Opened


@dataclass(frozen=True)
class Masked:
    """n samples, of which one modality is to be said. given: what is seen of all modalities; alone: of that, what is
    seen of this one. sides: with the targets and their labels; its inputs are `alone`."""

    name: str
    given: Tokens
    alone: Tokens
    sides: Sides

    @property
    def labels(self) -> Labels:
        return self.sides.labels


class Masker:
    """Masks the samples at some positions for each target modality in turn, by the loader's own arithmetic.

    Of the modality itself up to half of what a sample may show is seen, each number equally likely, and the rest is to
    be said; of a text the share that stays is drawn as in training. Of the others `input_tokens` are seen, shared out
    among them as any (a Dirichlet distribution of ones). Draws are by the sample's position alone.
    """

    def __init__(self, opened: Opened, input_tokens: int) -> None:
        self._opened, self._input_tokens = opened, input_tokens
        self._keep = named_schemes("all2all", opened.mixture.modalities)[0].keep

    def masked(self, positions: np.ndarray, targets: Sequence[str]) -> Iterator[Masked]:
        """positions: int64 (n,), in rising order. Raises what `Mixture.batch` raises."""
        maskings = [one for name in targets for one in (self._own(name), self._others(name))]
        batches = self._opened.mixture.batches(positions, maskings)
        for name, own, others in zip(targets, batches[::2], batches[1::2], strict=True):
            yield self._joined(name, own, others)

    def labels(self, positions: np.ndarray, targets: Sequence[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """Of each target modality the ids that are to be said."""
        batches = self._opened.mixture.batches(positions, [self._own(name) for name in targets])
        for name, own in zip(targets, batches, strict=True):
            yield name, self._sides(own).labels.ids

    def _own(self, name: str) -> Masking:
        most = self._opened.mixture.most(name)
        seen = {name: 1.0} if name in self._opened.inputs else {}
        scheme = Scheme(1.0, seen, {name: 1.0}, self._keep)
        return Masking([scheme], (min(1, most // 2), most // 2), (most, most))

    def _others(self, name: str) -> Masking:
        others = {one: 1.0 for one in self._opened.inputs if one != name}
        return Masking([Scheme(1.0, others, {}, self._keep)], (self._input_tokens, self._input_tokens), (0, 0))

    def _joined(self, name: str, own: Batch, others: Batch) -> Masked:
        config = self._opened.config
        sides, more = self._sides(own), self._sides(others)
        return Masked(name, joined(config, sides.inputs, more.inputs), joined(config, sides.inputs), sides)

    def _sides(self, batch: Batch) -> Sides:
        return Sides.of(self._opened.config, as_tensors(batch), batch.modalities)


def joined(config: ModelConfig, *sides: Tokens) -> Tokens:
    """All of their tokens, sample by sample."""
    parts = [torch.cat([getattr(one, field) for one in sides], dim=1) for field in ("ids", "position", "modality")]
    return packed(config, *parts)
