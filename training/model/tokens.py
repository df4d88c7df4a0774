"""Tokens that a model is given: which, of which modality, at which position; and of each modality where they stand.

All of it is known before the model begins, on the CPU, so that no step waits for the device to tell a shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch

from ..data.masking import IGNORED
from .config import ModelConfig

_EVERYTHING = 2**31 - 1
"""As far as a target of an image sees."""

_FOREIGN = -2
"""Stands for a modality that a side of the model doesn't have."""

_Own = TypeVar("_Own")


class _Movable:
    """A data class with tensors in it."""

    def to(self: _Own, device: torch.device | str) -> _Own:
        """On the device. From pinned memory they travel while the program goes on."""
        return _moved(self, device)


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

    def said(self, config: ModelConfig) -> tuple[int, ...]:
        """Of each of `config.targets`, how many there are."""
        return tuple(count for one, count in zip(config.modalities, self.counts, strict=True) if one.is_target)


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

        Raises ValueError for a modality that the model doesn't have on the side where it comes up.
        """
        made: list[Tokens] = []
        for side, own in (("inputs", config.inputs), ("targets", config.targets)):
            given, known = batch[side], {one.name for one in own}
            places = [config.names.index(name) if name in known else _FOREIGN for name in modalities]
            modality = torch.tensor([*places, -1])[given["modality"].long()]  # the last stands for -1, nothing
            if foreign := given["modality"][modality == _FOREIGN].tolist():
                raise ValueError(f"the model has no {modalities[foreign[0]]} among its {side}, and the batch has")
            made.append(Tokens.of(config, given["ids"], given["position"], modality))
        inputs, targets = made
        labels = Labels.of(config, batch["targets"]["labels"], targets.modality)
        return cls(inputs, targets, labels, batch.get("arrays", {}))


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {name: _moved(one, device) for name, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _moved(getattr(value, field.name), device) for field in fields(value)})
    return value


def grouped(modality: torch.Tensor, count: int) -> tuple[torch.Tensor, tuple[int, ...]]:
    """order and counts, as of Tokens. modality: int64 (n, l), -1 where there is none."""
    flat = modality.reshape(-1)
    counts = torch.bincount(flat + 1, minlength=count + 1).tolist()
    return torch.argsort(flat, stable=True)[counts[0] :], tuple(counts[1:])
