"""The vector that is looked for: what a model says of a sample of which something is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..evaluation.from_rgb import TEXT
from ..forms.forms import Form
from ..forms.given import Given
from ..forms.meanings import FormError
from ..generation.chain import Target, generate
from ..generation.draws import SeededDraws
from ..generation.seen import seen
from ..model.fourm import FourM


@dataclass(frozen=True)
class Query:
    """vector: float32 (dim,). predicted: whether the model said it; it may also be given."""

    vector: np.ndarray
    predicted: bool


@torch.inference_mode()
def query(model: FourM, form: Form, given: Mapping[str, Given], seed: int = 0) -> Query:
    """form: of the vector. given: by modality, as of `read_given`; where the vector is among them it is that one.

    Raises FormError where no vector comes of it.
    """
    own = given.get(form.name)
    if own is not None:
        if own.label is None:
            raise FormError(f"--from {own.said}: its tokens of {form.name} can't be read as a vector")
        return Query(own.label, predicted=False)
    state = seen(model.config, [{name: one.value for name, one in given.items()}])
    known = generate(model, state, [target(form)], TEXT, SeededDraws(seed, 1)).known[form.name]
    (said,) = form.decode(known.ids.tolist())
    if said.label is None:
        raise FormError(f"{form.name}: what the model says is no vector: {said.problem}")
    return Query(said.label, predicted=True)


def target(form: Form) -> Target:
    """All tokens of a vector in one step, nearly the likeliest ones: as 4M-21 is asked for vectors to retrieve by
    (ml-4m, notebooks/retrieval_4M-21.ipynb)."""
    return Target(form.name, "roar", steps=1, token_schedule="linear", temperature=0.1, top_p=0.8)
