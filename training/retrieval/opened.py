"""A model and a dataset whose vectors are of one kind: opened together, and refused by name where they aren't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...labelers.contract.kinds import Vector
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.manifest import DatasetError, Manifest, require_manifest
from ...pipeline.storage.store import Store
from ..fit.open_model import open_model
from ..forms.forms import Form, Forms, datasets_name
from ..forms.meanings import FormError, of_dataset
from ..model.fourm import FourM
from .vectors import DatasetVectors, vector_card


@dataclass(frozen=True)
class Opened:
    """form: of the vector. notes: for people."""

    model: FourM
    forms: Forms
    form: Form
    manifest: Manifest
    vectors: DatasetVectors
    notes: Sequence[str]


def open_both(checkpoint: str, dataset: str, by: str, meanings: str | None = None) -> Opened:
    """by: the vector's modality, by the model's name or a dataset's. meanings: the URL of a dataset that says what the
    model's ids mean; by default its folder does, or where that says nothing, `dataset`.

    Raises CheckpointError, DatasetError, StorageError, and FormError where `by` is no vector that the model says.
    """
    store = Store(dataset)
    manifest = require_manifest(store)
    model, forms = open_model(checkpoint, meanings)
    if forms.form(by).card is None and meanings is None:
        forms = Forms(model.config, of_dataset(store), checkpoint)
    form = forms.target(by)
    if not isinstance(form.kind, Vector):
        vectors = [one.name for one in model.config.targets if _is_vector(forms.form(one.name))]
        told = f"the vectors that the model says are {', '.join(vectors)}" if vectors else "the model says no vectors"
        raise FormError(f"--by {by}: {form.name} isn't a vector of a whole sample; {told}")
    name = form.name if form.name in manifest.modalities else datasets_name(form.modality)
    assert form.card is not None
    _refuse_other_vectors(store, name, form.card, vector_card(store, manifest, name))
    vectors = DatasetVectors(store, manifest, name)
    return Opened(model, forms, form, manifest, vectors, _notes(form.card, vectors))


def _is_vector(form: Form) -> bool:
    return form.card is not None and isinstance(form.kind, Vector)


def _refuse_other_vectors(store: Store, name: str, card: ModalityCard, other: ModalityCard) -> None:
    """Vectors can be compared where one labeler has made them, with the same weights and parameters."""
    for what, own, its in zip(("labeler", "length", "weights", "params"), _of(card), _of(other), strict=True):
        if own != its:
            raise DatasetError(
                f"{store.url}: its {name} can't be compared with the model's: {what} {its}, and the model's {own}; "
                f"take a dataset that was labelled as the one that the model was trained on"
            )


def _of(card: ModalityCard) -> tuple[Any, ...]:
    return card.labeler, card.kind["dim"], card.weights and card.weights.sha256, card.params


def _notes(card: ModalityCard, vectors: DatasetVectors) -> list[str]:
    notes = []
    other = vectors.card
    if other.fitted and other.tokens and card.tokenizer_digest != other.tokenizer_digest:
        notes.append(
            f"the dataset's tokenizer of {vectors.name} is another than the model's (digest {other.tokenizer_digest}, "
            f"and the model's {card.tokenizer_digest}); the vectors that both decode to are the same labeler's"
        )
    if vectors.unmade:
        notes.append(f"{vectors.unmade:,} samples have no {vectors.name} yet; `tokenloom status` tells how far it is")
    return notes
