"""Running one labeler over many samples, so that a bad sample costs that sample and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ...labelers.contract.kinds import Kind
from ...labelers.contract.labeler import Batch, Labeler, labels_of


@dataclass(frozen=True)
class Failed:
    """Why one sample failed: what the quarantine will say. without: as of Failure."""

    reason: str
    error: str
    without: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        return cls(str(error).strip()[:2000] or type(error).__name__, type(error).__name__)


Outcome: TypeAlias = "Any | Failed | None"
"""A checked label, None where the sample has no such label, or a Failed."""


Poison: TypeAlias = Mapping[tuple[int, str], Failed]
"""Samples (index in the unit) and steps that are known to kill the process."""


class Runner:
    """One loaded labeler. Remembers the batch size that fitted into the device's memory."""

    def __init__(self, labeler: Labeler, modalities: Sequence[str], batch_size: int, device: str) -> None:
        """modalities: those of the labeler's outputs that are wanted."""
        self.labeler = labeler
        self.kinds: dict[str, Kind] = {m.name: m.kind for m in labeler.makes if m.name in modalities}
        self.batch_size = batch_size
        self._device = device
        labeler.load(device)

    def run(self, batch: Batch) -> dict[str, list[Outcome]]:
        """One outcome per sample for every wanted modality. Raises nothing that a sample or the labeler can cause."""
        outcomes: dict[str, list[Outcome]] = {name: [] for name in self.kinds}
        start = 0
        while start < len(batch):
            stop = min(start + self.batch_size, len(batch))
            try:
                part = self._label(take(batch, range(start, stop)))
            except Exception as error:  # a plugin may raise anything
                if _out_of_memory(error) and self.batch_size > 1:
                    self._halve()
                    continue
                part = self._bisect(take(batch, range(start, stop)), error)
            for name, labels in part.items():
                outcomes[name].extend(labels)
            start = stop
        return outcomes

    def _label(self, batch: Batch) -> dict[str, list[Outcome]]:
        with _inference(self.labeler, self._device):
            answer = self.labeler.label(batch)
        return {
            name: [_checked(kind, label) for label in labels_of(self.labeler, answer, name, len(batch))]
            for name, kind in self.kinds.items()
        }

    def _bisect(self, batch: Batch, error: Exception) -> dict[str, list[Outcome]]:
        """Labels halves until the samples that raise are alone."""
        if len(batch) == 1:
            return {name: [Failed.of(error)] for name in self.kinds}
        middle = len(batch) // 2
        outcomes: dict[str, list[Outcome]] = {name: [] for name in self.kinds}
        for half in (range(middle), range(middle, len(batch))):
            part = take(batch, half)
            try:
                labels = self._label(part)
            except Exception as half_error:
                labels = self._bisect(part, half_error)
            for name, found in labels.items():
                outcomes[name].extend(found)
        return outcomes

    def _halve(self) -> None:
        import torch

        self.batch_size //= 2
        torch.cuda.empty_cache()


def take(batch: Batch, indices: Sequence[int]) -> Batch:
    """The samples of a batch at `indices`, in that order."""
    images = batch.images
    if isinstance(images, np.ndarray):
        if isinstance(indices, range) and indices.step == 1:  # a stretch needs no copy
            images = images[indices.start : indices.stop]
        else:
            images = images[np.asarray(indices, dtype=int)]
    elif images is not None:
        images = [images[index] for index in indices]
    return Batch(
        keys=[batch.keys[index] for index in indices],
        images=images,
        views=[batch.views[index] for index in indices] if batch.views else [],
        fields=[batch.fields[index] for index in indices],
        labels={name: [labels[index] for index in indices] for name, labels in batch.labels.items()},
    )


def _checked(kind: Kind, label: Any) -> Outcome:
    if label is None:
        return None
    try:
        return kind.check(label)
    except Exception as error:
        return Failed.of(error)


def _out_of_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError"


def _inference(labeler: Labeler, device: str) -> AbstractContextManager[Any]:
    """torch.inference_mode for labelers with weights, under autocast where they allow it on a GPU."""
    if labeler.weights is None:
        return nullcontext()
    import torch

    if labeler.autocast is None or device == "cpu":
        return torch.inference_mode()
    stack = ExitStack()
    stack.enter_context(torch.inference_mode())
    stack.enter_context(torch.autocast(device, dtype=getattr(torch, labeler.autocast)))
    return stack
