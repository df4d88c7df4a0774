"""Tokens that a model is given: which, of which modality, at which position; and of each modality where they stand.

All of it is known before the model begins, on the CPU, so that no step waits for the device to tell a shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch

from ..data.masking import IGNORED
from .config import ModelConfig

_EVERYTHING = 2**31 - 1

_Moved = TypeVar("_Moved", bound="_Movable")


class _Movable:
    """A data class of tensors, and of what isn't."""

    def to(self: _Moved, device: torch.device | str) -> _Moved:
        found = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        moved = {name: one.to(device, non_blocking=True) for name, one in found.items() if hasattr(one, "to")}
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(frozen=True)
class Tokens(_Movable):
    """One side of n samples, with l places each.

    ids, position, modality: int64 (n, l), as of `masking.Masked`; modality is -1 where a place isn't used. used: bool
    (n, l). reach: int64 (n, l), up to which position of its own modality a target sees others: of images all.

    order: int64 (k,), the places that are used, counted through all rows, modality by modality and row by row. counts:
    of each of the model's modalities, how many there are.
    """

    ids: torch.Tensor
    position: torch.Tensor
    modality: torch.Tensor
    used: torch.Tensor
    reach: torch.Tensor
    order: torch.Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, config: ModelConfig, ids: torch.Tensor, position: torch.Tensor, modality: torch.Tensor) -> Tokens:
        """modality: the places in `config.modalities`, -1 where there is no token. Of any integer types, on the CPU."""
        modality, position = modality.long(), position.long()
        order, counts = grouped(modality, len(config.modalities))
        causal = torch.tensor([one.form == "text" for one in config.modalities] + [False])[modality]
        reach = torch.where(causal, position, _EVERYTHING)
        return cls(ids.long(), position, modality, modality >= 0, reach, order, counts)

    @property
    def self_attention_mask(self) -> torch.Tensor:
        """bool (n, 1, l, l): row i sees column j, which is of the same modality and, in a text, not behind it."""
        same = self.modality[:, :, None] == self.modality[:, None, :]
        return (same & (self.position[:, None, :] <= self.reach[:, :, None]))[:, None]


@dataclass(frozen=True)
class Labels(_Movable):
    """What is to be said. ids: int64 (k,). order, counts: as of Tokens, of the places where something is."""

    ids: torch.Tensor
    order: torch.Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, config: ModelConfig, labels: torch.Tensor, modality: torch.Tensor) -> Labels:
        """labels: (n, l), IGNORED where nothing is to be said."""
        where = torch.where(labels == IGNORED, -1, modality.long())
        order, counts = grouped(where, len(config.modalities))
        return cls(labels.reshape(-1)[order].long(), order, counts)


@dataclass(frozen=True)
class Sides(_Movable):
    """A batch as a model takes it. arrays: pixels and embeddings by modality, as of `batch.Batch`."""

    inputs: Tokens
    targets: Tokens
    labels: Labels
    arrays: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, config: ModelConfig, batch: Mapping[str, Any], modalities: Sequence[str]) -> Sides:
        """A batch of the loader. modalities: which its numbers stand for, `TrainingBatches.modalities`.

        Raises KeyError for a modality that the model doesn't have.
        """
        number = {name: place for place, name in enumerate(config.names)}
        places = torch.tensor([number[name] for name in modalities] + [-1])  # the last stands for -1, nothing
        inputs, targets = (
            {**batch[side], "modality": places[batch[side]["modality"].long()]} for side in ("inputs", "targets")
        )
        sides = [Tokens.of(config, one["ids"], one["position"], one["modality"]) for one in (inputs, targets)]
        labels = Labels.of(config, targets["labels"], targets["modality"])
        return cls(sides[0], sides[1], labels, batch.get("arrays", {}))

    def to(self, device: torch.device | str) -> Sides:
        arrays = {name: one.to(device, non_blocking=True) for name, one in self.arrays.items()}
        return replace(super().to(device), arrays=arrays)


def grouped(modality: torch.Tensor, count: int) -> tuple[torch.Tensor, tuple[int, ...]]:
    """order and counts, as of Tokens. modality: int64 (n, l), -1 where there is none."""
    flat = modality.reshape(-1)
    counts = torch.bincount(flat + 1, minlength=count + 1).tolist()
    return torch.argsort(flat, stable=True)[counts[0] :], tuple(counts[1:])
