"""What is said within a grammar parses, whatever the model has learnt: here nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import TEXTS
from tokenloom.labelers.contract.kinds import Instances
from tokenloom.tokenizers.contract.special_tokens import EOS
from tokenloom.training.fit.open_model import open_model
from tokenloom.training.forms.forms import Form, Said
from tokenloom.training.generation.chain import Target, generate
from tokenloom.training.generation.draws import SeededDraws
from tokenloom.training.generation.seen import seen
from tokenloom.training.generation.state import State, TextIds
from tokenloom.training.model.fourm import FourM

GAPS = TextIds(range(4, 204))
DRAWS = 12


@pytest.fixture(scope="module")
def model(pictures) -> FourM:
    return open_model(str(pictures / "run"))[0]


def said(model: FourM, form: Form, state: State, free: bool = False, **how: Any) -> list[list[int]]:
    if not free:
        how["sentence"] = form.sentence
    target = Target(form.name, most=form.modality.length, **how)
    with torch.inference_mode():
        made = generate(model, state, [target], GAPS, SeededDraws(7, state.samples), ["rgb"])
    return made.known[form.name].rows


def decoded(form: Form, rows: list[list[int]]) -> list[Said]:
    assert all(row.count(EOS) == 1 and row[-1] == EOS for row in rows)
    return form.decode(rows)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("how", [{}, {"temperature": 0.0}, {"temperature": 30.0, "top_k": 3}, {"weight": 4.0}], ids=str)
def test_what_is_said_within_a_grammar_parses(model, forms, name, how):
    form, given = forms.target(name), torch.arange(16).numpy() % 4
    for one in decoded(form, said(model, form, seen(model.config, [{"rgb": given}] * DRAWS), **how)):
        assert one.problem == ""
        kind = (
            replace(form.kind, scores=False) if isinstance(form.kind, Instances) else form.kind
        )  # no token tells them
        kind.check(one.label)


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "caption"])
def test_what_is_said_freely_does_not(model, forms, name):
    """Or the test above would show nothing."""
    form = forms.target(name)
    assert any(one.problem for one in form.decode(said(model, form, State(DRAWS, {}), free=True)))


def test_a_text_ends_where_the_model_has_no_more_places(model, forms):
    form = forms.target("facts")
    rows = said(model, form, State(DRAWS, {}), temperature=30.0)
    assert max(map(len, rows)) <= form.modality.length - 2


def test_texts_do_not_hang_on_those_beside_them(model, forms):
    form = forms.target("det")
    rows = said(model, form, State(DRAWS, {}))
    assert said(model, form, State(3, {})) == rows[:3]


def test_a_sentence_is_a_whole_text(model, forms):
    form = forms.target("caption")
    state = seen(model.config, [{"caption": torch.tensor([300, 301]).numpy()}])
    with pytest.raises(ValueError, match="caption: a sentence is a whole text"):
        said(model, form, state)
