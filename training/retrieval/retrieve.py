"""What `tokenloom retrieve` does: a vector for what is given, and the samples of a dataset that are nearest to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...pipeline.dataset.dataset import Dataset, open_dataset
from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.storage.store import Store
from ..fit.open_model import open_model
from ..forms.forms import Form, Forms, datasets_name
from ..forms.given import Given, read_given
from ..forms.meanings import of_dataset
from .nearest import Match, Nearest
from .query import query_vector, refuse_other_space, vector_form
from .vectors import Vectors

Watch = Callable[[str, int, int], None]
"""Told what is being done, with how many samples so far, and of how many."""


@dataclass(frozen=True)
class Retrieval:
    """checkpoint, dataset: where they are. by: the dataset's name of the modality; origin: what its vectors are,
    "labels" or decoded "tokens". given: by the model's names. predicted: whether the model made the vector. samples:
    that were looked through; lacking: those of them without a vector; unmade: further ones, of which the modality isn't
    made yet."""

    checkpoint: str
    dataset: Dataset
    by: str
    origin: str
    given: Mapping[str, Given]
    vector: np.ndarray
    predicted: bool
    matches: Sequence[Match]
    samples: int
    lacking: int
    unmade: int


def retrieve(
    checkpoint: str,
    dataset: str,
    said: Sequence[str],
    by: str,
    count: int,
    seed: int,
    watch: Watch,
    meanings: str | None = None,
) -> Retrieval:
    """said: as `--from` has it, see `forms.given.read_given`. meanings: the URL of a dataset that says what the model's
    ids mean, in place of its folder and of `dataset`.

    Raises CheckpointError, FormError, DatasetError, StorageError.
    """
    model, forms = open_model(checkpoint, meanings)
    if not forms.known:  # a published model says nothing of its ids: the dataset does, if they are the same
        forms = Forms(model.config, of_dataset(Store(dataset)), forms.source)
    searched = open_dataset(dataset)
    form = vector_form(forms, by)
    vectors = Vectors(searched, _name_in(searched, form))
    if form.card is not None:
        refuse_other_space(form, searched.manifest.modalities[vectors.modality], searched.store.url)
    given = read_given(forms, said)
    vector, predicted = query_vector(model, forms, given, by, seed)
    nearest, done = Nearest(vector, count), 0
    watch("looking through", done, vectors.samples)
    for rows in vectors:
        nearest.add(rows)
        done += rows.unit.count
        watch("looking through", done, vectors.samples)
    if not nearest.matches:
        raise DatasetError(f"{searched.store.url}: none of its {vectors.samples:,} samples has {vectors.modality}")
    return Retrieval(
        forms.source,
        searched,
        vectors.modality,
        vectors.origin,
        given,
        vector,
        predicted,
        nearest.matches,
        vectors.samples,
        vectors.lacking,
        vectors.unmade,
    )


def _name_in(dataset: Dataset, form: Form) -> str:
    """What the dataset calls it. Raises DatasetError where it has none of it."""
    names = form.name, datasets_name(form.modality)
    found = next((name for name in names if name in dataset.modalities), None)
    if found is None:
        raise DatasetError(f"{dataset.store.url}: has no modality {form.name}; it has {', '.join(dataset.modalities)}")
    return found
