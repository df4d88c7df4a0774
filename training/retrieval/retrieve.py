"""What `tokenloom retrieve` finds: the samples of a dataset whose vectors are nearest to what a model says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...pipeline.dataset.manifest import DatasetError
from ..forms.given import Given
from .nearest import Hit, nearest
from .opened import Opened
from .query import query


@dataclass(frozen=True)
class Found:
    """A sample. score: the cosine of its vector with the one looked for."""

    rank: int
    score: float
    key: str
    unit: str


@dataclass(frozen=True)
class Retrieval:
    """checkpoint, dataset: where they are. given: what the user said. by: the vector's modality, as the dataset calls
    it; predicted: whether the model said the vector, which may be given, too. vectors: whether the dataset's are its
    "labels" or what its "tokens" decode to. samples: that were compared; lacking: that have no vector. hits: the
    nearest first. notes: for people."""

    checkpoint: str
    dataset: str
    given: Sequence[str]
    by: str
    predicted: bool
    vectors: str
    samples: int
    lacking: int
    hits: Sequence[Found]
    notes: Sequence[str]


def retrieve(
    checkpoint: str,
    opened: Opened,
    given: Mapping[str, Given],
    count: int,
    watch: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[Retrieval, list[Hit]]:
    """The hits, too, with where their samples lie in the dataset.

    Raises FormError where no vector comes of what is given, DatasetError where there is none to compare it with.
    """
    vectors = opened.vectors
    sought = query(opened.model, opened.form, given)
    hits = nearest(
        sought.vector, vectors.parts(lambda done, total: watch(f"looking through {vectors.name}", done, total)), count
    )
    if not hits:
        raise DatasetError(f"{vectors.store.url}: none of its {vectors.samples:,} samples has a {vectors.name}")
    found = Retrieval(
        checkpoint=checkpoint,
        dataset=vectors.store.url,
        given=list(dict.fromkeys(one.said for one in given.values())),
        by=vectors.name,
        predicted=sought.predicted,
        vectors=vectors.source,
        samples=vectors.samples - vectors.lacking,
        lacking=vectors.lacking,
        hits=[Found(at, hit.score, hit.key, vectors.units[hit.place].name) for at, hit in enumerate(hits, 1)],
        notes=opened.notes,
    )
    return found, hits
