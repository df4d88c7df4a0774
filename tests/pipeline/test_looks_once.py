"""What a run asks of its output's listings: of a large dataset on S3 they are what takes its time."""

from __future__ import annotations

from collections import Counter

import pytest
from in_process import weave
from tokenloom.pipeline import run as running
from tokenloom.pipeline.dataset.manifest import publish
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.storage.store import Store
from weaving import digests, odd, recipe


@pytest.fixture
def listed(monkeypatch) -> Counter[str]:
    """How often each folder was listed from its beginning."""
    counted, pages = Counter(), Store.pages

    def count(self, prefix="", *more):
        counted[prefix] += 1
        return pages(self, prefix, *more)

    monkeypatch.setattr(Store, "pages", count)
    return counted


def test_a_run_looks_before_its_work_and_after_it_and_once_where_there_is_none(small_corpus, tmp_path, listed):
    modalities = {"mean_colour": odd("MeanColour"), "caption": {"keep": "labels"}}
    asked = recipe(small_corpus, tmp_path / "output", modalities)
    before = weave(asked)
    assert [listed[name] for name in modalities] == [2, 2]
    there = digests(tmp_path / "output")
    listed.clear()
    again = weave(asked)
    assert [listed[name] for name in modalities] == [1, 1]
    assert (again.whole, again.superseded, again.empty) == (before.whole, before.superseded, before.empty)
    assert digests(tmp_path / "output") == there


def test_a_run_looks_again_where_somebody_has_it_keep_more_meanwhile(small_corpus, tmp_path, monkeypatch):
    """Of which nothing is there: what it tells at its end is of all that the dataset is to keep by then."""
    tokenizer = {"name": "product_codebook", "params": {"parts": 1, "size": 2}}

    def keeping(keep: str):
        modalities = {"mean_colour": odd("MeanColour", keep=keep, tokenizer=tokenizer)}
        return recipe(small_corpus, tmp_path / "output", modalities)

    asked, clean = keeping("tokens"), running._clean

    def overtaken(plan, store) -> None:
        clean(plan, store)
        publish(store, lambda now: make_plan(keeping("both")).manifest)

    assert weave(asked).whole.labels["mean_colour"].rows == 6
    monkeypatch.setattr(running, "_clean", overtaken)
    assert weave(asked).whole.labels["mean_colour"].rows == 0
