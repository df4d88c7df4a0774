"""What batches are made of: tokens of each modality, empty samples, epochs, and how quickly they come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..data.batch import Batch
from ..data.masking import Masked
from ..data.mixture import Mixture
from ..data.opening import OpenData
from ..data.order import turns


@dataclass
class Side:
    """The inputs, or the targets, of the samples seen so far. tokens: by modality, used in how many samples: likewise.
    empty: samples without any."""

    tokens: np.ndarray
    samples: np.ndarray
    empty: int = 0

    def add(self, masked: Masked) -> None:
        counts = np.stack([(masked.modality == place).sum(axis=1) for place in range(len(self.tokens))], axis=1)
        self.tokens += counts.sum(axis=0)
        self.samples += (counts > 0).sum(axis=0)
        self.empty += int((counts.sum(axis=1) == 0).sum())


@dataclass
class Figures:
    """Counts over batches. datasets: samples of each. unread: of each modality the samples that lack it as it
    couldn't be read. seconds: that it took to make them."""

    modalities: Sequence[str]
    datasets: np.ndarray
    unread: np.ndarray
    samples: int = 0
    seconds: float = 0.0
    inputs: Side = field(init=False)
    targets: Side = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.modalities)
        self.inputs, self.targets = (Side(np.zeros(count, int), np.zeros(count, int)) for _ in range(2))

    @property
    def skipped(self) -> list[tuple[str, int]]:
        """The modalities that couldn't be read, with so many samples each."""
        return [(name, int(count)) for name, count in zip(self.modalities, self.unread, strict=True) if count]

    def add(self, batch: Batch, mixture: Mixture) -> None:
        self.samples += len(batch.positions)
        self.inputs.add(batch.inputs)
        self.targets.add(batch.targets)
        self.unread += batch.skipped.sum(axis=0)
        for source, places in mixture.places(batch.positions):
            self.datasets[source] += len(places.position)


def counted(mixture: Mixture, batches: Iterable[Batch]) -> tuple[Figures, list[Batch]]:
    """The figures of the batches, which are returned as well."""
    count = len(mixture.modalities)
    figures = Figures(mixture.modalities, np.zeros(len(mixture.datasets), int), np.zeros(count, int))
    kept: list[Batch] = []
    for batch in _timed(batches, figures):
        figures.add(batch, mixture)
        kept.append(batch)
    return figures, kept


def _timed(batches: Iterable[Batch], figures: Figures) -> Iterator[Batch]:
    """Adds the time that the batches themselves take."""
    source = iter(batches)
    while True:
        begun = time.perf_counter()
        batch = next(source, None)
        figures.seconds += time.perf_counter() - begun
        if batch is None:
            return
        yield batch


@dataclass(frozen=True)
class Epochs:
    """A dataset's share of the samples, and how often a run of some steps goes through it."""

    name: str
    share: float
    epochs: float


def epochs(data: OpenData, steps: int) -> list[Epochs]:
    """Of each dataset; an epoch has each of its samples `repeats` times."""
    whose = turns([one.mixed.weight for one in data.datasets])
    shares = np.bincount(whose, minlength=len(data.datasets)) / len(whose)
    drawn = shares * steps * data.settings.batch_size
    return [
        Epochs(one.mixed.name, float(share), float(own / (one.samples * one.mixed.repeats)))
        for one, share, own in zip(data.datasets, shares, drawn, strict=True)
    ]
