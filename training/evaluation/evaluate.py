"""What `tokenloom evaluate` finds out of a model on a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...pipeline.dataset.manifest import DatasetError
from ..model.fourm import FourM
from .from_rgb import Likeness, likenesses, picture_input
from .losses import LossSum, ModalityLoss, counted, told
from .masked import Masker
from .opened import Opened, fitted

BATCH = 16
"""Samples that a model sees together."""

Watch = Callable[[str, int, int], None]
"""Told what is being done, how many samples are through, and of how many."""


@dataclass(frozen=True)
class Evaluation:
    """checkpoint, dataset, against: where they are. samples: that were looked at. input_tokens: of other modalities,
    that a sample shows. losses: by modality. picture: what of a picture the model was given, `pixels` or the tokens of
    `rgb`; from_picture: what it says of it, by modality. without: target modalities of which no sample had anything to
    say. notes: for people."""

    checkpoint: str
    dataset: str
    samples: int
    input_tokens: int
    against: str | None
    losses: Mapping[str, ModalityLoss]
    picture: str | None
    from_picture: Mapping[str, Likeness]
    without: Sequence[str] = ()
    notes: Sequence[str] = field(default=())


def losses(
    opened: Opened, input_tokens: int, limit: int | None, against: Opened | None, watch: Watch
) -> dict[str, ModalityLoss | None]:
    """Of each target modality, None where no sample has anything to say of it. against: whose tokens are counted, all
    of them, for the unigram model of another dataset.

    Raises what `Mixture.batch` raises.
    """
    masker = Masker(opened, input_tokens)
    sums = {name: LossSum(_vocabulary(opened.model, name)) for name in opened.targets}
    chunks, done = opened.chunks(limit, BATCH), 0
    total = sum(map(len, chunks))
    for positions in chunks:
        watch("losses", done, total)
        for one in masker.masked(positions, opened.targets):
            given, alone = (told(opened.model, side, one.sides, one.name) for side in (one.given, one.alone))
            sums[one.name].add(given, alone, one.labels)
        done += len(positions)
    watch("losses", done, total)
    counts = unigrams(against, input_tokens, watch) if against else {}
    return {name: one.means(counts.get(name)) for name, one in sums.items()}


def unigrams(opened: Opened, input_tokens: int, watch: Watch) -> dict[str, np.ndarray]:
    """int64 (vocabulary,) of each target modality: how often each id is to be said, masked as in `losses`."""
    masker = Masker(opened, input_tokens)
    counts = {name: np.zeros(_vocabulary(opened.model, name), np.int64) for name in opened.targets}
    chunks, done = opened.chunks(None, BATCH), 0
    total = sum(map(len, chunks))
    for positions in chunks:
        watch("counting tokens of the other dataset", done, total)
        for name, ids in masker.labels(positions, opened.targets):
            counts[name] += counted(ids, len(counts[name]))
        done += len(positions)
    watch("counting tokens of the other dataset", done, total)
    return counts


def evaluate(
    opened: Opened,
    input_tokens: int = 256,
    limit: int | None = None,
    against: str | None = None,
    watch: Watch = lambda what, done, total: None,
) -> Evaluation:
    """limit: samples, at most. against: the URL of the dataset that the model was trained on, or of any other.

    Raises DatasetError for a dataset that can't be read, CheckpointError where `against` is one that the model doesn't
    fit.
    """
    other = fitted(opened.checkpoint, opened.model, against) if against else None
    if other and (lacking := [name for name in opened.targets if name not in other.targets]):
        raise DatasetError(f"{against}: has no {lacking[0]}, whose tokens are to be counted; take the dataset that has")
    found = losses(opened, input_tokens, limit, other, watch)
    picture = picture_input(opened)
    said = likenesses(opened, limit, BATCH, lambda done, total: watch("from pictures", done, total)) if picture else {}
    return Evaluation(
        checkpoint=opened.checkpoint,
        dataset=opened.dataset.mixed.reader.store.url,
        samples=min(opened.dataset.samples, limit or opened.dataset.samples),
        input_tokens=input_tokens,
        against=other and other.dataset.mixed.reader.store.url,
        losses={name: one for name, one in found.items() if one is not None},
        picture=picture,
        from_picture={name: one for name, one in said.items() if one is not None},
        without=[name for name, one in found.items() if one is None],
        notes=opened.notes,
    )


def _vocabulary(model: FourM, name: str) -> int:
    return model.target_embedding(name).modality.vocabulary
