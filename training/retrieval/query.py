"""From what a user gives to the vector that is searched for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ...labelers.contract.kinds import Vector
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.manifest import DatasetError
from ..forms.forms import Form, Forms
from ..forms.given import Given
from ..forms.meanings import FormError
from ..generation.chain import Target, generate
from ..generation.draws import SeededDraws
from ..generation.seen import seen
from ..generation.state import TEXT_IDS
from ..model.fourm import FourM


def vector_form(forms: Forms, by: str) -> Form:
    """The modality of vectors that is searched by. Raises FormError for one of another kind, or that isn't there."""
    form = forms.form(by)
    if form.card is not None and not isinstance(form.kind, Vector):
        raise FormError(f"--by {by}: it is no vector but {type(form.kind).__name__.lower()}; such as dinov2_global are")
    return form


@torch.inference_mode()
def query_vector(model: FourM, forms: Forms, given: Mapping[str, Given], by: str, seed: int) -> tuple[np.ndarray, bool]:
    """float32 (dim,), and whether the model had to predict it, from all that is given: what is given of the modality
    itself is taken as it is.

    Raises FormError for a modality that the model doesn't say, and for tokens that are no vector.
    """
    form = vector_form(forms, by)
    if form.name in given:
        return _checked(form, given[form.name].label), False
    form = forms.target(by)
    state = seen(model.config, [{name: one.value for name, one in given.items()}])
    target = Target(form.name, "roar", 1, "linear", temperature=0.1, top_p=0.8)  # ml-4m, retrieval_4M-21.ipynb
    made = generate(model, state, [target], TEXT_IDS, SeededDraws(seed, 1))
    (said,) = form.decode(made.known[form.name].rows)
    if said.label is None:
        raise FormError(f"--by {by}: {said.problem}")
    return _checked(form, said.label), True


def _checked(form: Form, label: Any) -> np.ndarray:
    return form.kind.check(np.asarray(label, np.float32))


def refuse_other_space(form: Form, card: ModalityCard, dataset: str) -> None:
    """Raises DatasetError where the dataset's vectors are another model's, so that no distance between them and the
    form's means anything."""
    assert form.card is not None
    for what, own, other in (
        ("labeler", form.card.labeler, card.labeler),
        ("its version", form.card.version, card.version),
        ("params", form.card.params, card.params),
        ("weights", form.card.weights and form.card.weights.sha256, card.weights and card.weights.sha256),
        ("kind", form.card.kind, card.kind),
    ):
        if own != other:
            raise DatasetError(
                f"{dataset}: {form.name} is of another space than the model's: {what} {_said(other)} here, and "
                f"{_said(own)} where the model was trained; a dataset of the same labeler can be searched"
            )


def _said(value: Any) -> str:
    return value[:12] if isinstance(value, str) else str(value)
