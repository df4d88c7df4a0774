"""From a sequence of ids of one vocabulary back to labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...pipeline.dataset.dataset import Dataset
from .lm_vocabulary import LmVocabulary, Segment
from .pieces import ExportError


@dataclass(frozen=True)
class Decoded:
    """A segment of the sequence and its label; None where there is none, and `problem` says why."""

    segment: Segment
    label: Any
    problem: str


def decode(vocabulary: LmVocabulary, ids: Sequence[int] | np.ndarray, dataset: Dataset) -> list[Decoded]:
    """The labels that the modalities in a sequence stand for, in its order.

    dataset: the one that was exported. Raises ExportError where it has other tokenizers than the vocabulary is of.
    """
    return list(_decoded(vocabulary, vocabulary.parse(ids), dataset))


def _decoded(vocabulary: LmVocabulary, segments: Sequence[Segment], dataset: Dataset) -> Iterator[Decoded]:
    for one in segments:
        if one.modality:
            _refuse_another(vocabulary, one.modality, dataset)
        if one.problem:
            yield Decoded(one, None, one.problem)
            continue
        try:
            yield Decoded(one, dataset.decode(one.modality, one.ids), "")
        except Exception as error:  # tokenizers may be a plugin's, and what a model makes needn't be what they made
            yield Decoded(one, None, f"its tokenizer can't decode it ({type(error).__name__}: {error})")


def _refuse_another(vocabulary: LmVocabulary, modality: str, dataset: Dataset) -> None:
    info = dataset.modalities.get(modality)
    if info is None or info.generation != vocabulary.generations[modality]:
        what = "was made anew since" if info else "isn't there"
        raise ExportError(
            f"{dataset.store.url}: {modality}, as it was exported, {what}: give the dataset that has it by --dataset"
        )
