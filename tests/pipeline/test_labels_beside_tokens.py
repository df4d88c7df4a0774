"""Labels and tokens of one modality, of which one lies there before the other: what failed in either counts, is told
and is tried again, each failure once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from in_process import said, weave, without_ray
from tokenloom.pipeline.checks.garbage import remove_garbage
from tokenloom.pipeline.checks.quarantine import list_failures
from tokenloom.pipeline.checks.status import LedgerCounts, read_status
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.engine.tally import Tally, TooManyFailuresError
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import Recipe
from tokenloom.pipeline.retry import retry
from tokenloom.pipeline.run import execute
from tokenloom.pipeline.storage.store import Store
from weaving import card_of, labels_of, missing, odd, recipe

pytestmark = pytest.mark.slow

LABELERS = {"grid": ("FailsFor", "codebook", 2), "whole": ("WholeFailsFor", "product_codebook", 1)}
"""By modality: its labeler, a tokenizer, and how many labels of a sample's two views there are."""


class Case:
    """One modality, whose labeler fails for those whom `bad` names."""

    def __init__(self, name: str, corpus: Path, folder: Path) -> None:
        self.name, self.corpus, self.folder, self.output = name, corpus, folder, folder / "out"
        self.store = Store(self.output)
        folder.mkdir(exist_ok=True)
        self.fails()

    def fails(self, *keys: str) -> None:
        (self.folder / "bad").write_text(" ".join(keys))

    def recipe(self, keep: str, size: int = 4, of: int = 1, **more: Any) -> Recipe:
        """of: has no effect, but on the labels' generation."""
        labeler, tokenizer, _ = LABELERS[self.name]
        codes: dict[str, Any] = {"tokenizer": {"name": tokenizer, "params": {"size": size}}} if keep != "labels" else {}
        settings = odd(labeler, keep=keep, params={"file": str(self.folder / "bad"), "of": of}, **codes)
        modalities = {self.name: settings, **more.pop("beside", {})}
        common = {"units": {"samples": 2}, "views": {"size": 32, "count": 2}, "fit": {"units": 2}, "max_failures": 1.0}
        return recipe(self.corpus, self.output, modalities, **{**common, **more})

    def again(self, *modalities: str) -> Tally:
        with without_ray():
            return retry(str(self.output), modalities)

    def failures(self) -> list[tuple[str, str]]:
        return [(one.key, one.reason) for one in list_failures(self.store)]

    def quarantined(self) -> int:
        """As status and a caller that asks again have it; as `run` counts them."""
        ledgers = LedgerCounts(self.store)
        (one,) = {sum(m.quarantined for m in read_status(self.store, ledgers).modalities) for _ in range(2)}
        return one


@pytest.fixture(params=LABELERS)
def case(request, corpus, tmp_path) -> Case:
    return Case(request.param, corpus, tmp_path)


def test_labels_that_failed_beside_tokens_that_stand_are_told_and_tried_again(case):
    weave(case.recipe("tokens"))
    case.fails("rocket", "china")
    for _ in range(2):  # the second finds nothing to do
        with pytest.raises(TooManyFailuresError, match="4 of 12 labels failed"):
            weave(case.recipe("both", max_failures=0.3))
        assert not card_of(case.output, case.name).keeps_labels
    assert "rocket" in said("quarantine", case.output)
    weave(case.recipe("both"))
    assert missing(case.output, case.name) == {"rocket", "china"}
    assert {key for key, _ in case.failures()} == {"rocket", "china"}
    assert case.quarantined() == 4
    case.fails()
    tally = case.again()
    assert (tally.rows, tally.failed) == ({case.name: 4}, {case.name: 0})
    assert (missing(case.output, case.name), case.failures(), case.quarantined()) == (set(), [], 0)
    remove_garbage(case.store)
    assert verify(case.output, deep=True).faults == []


def test_what_the_run_tells_of_them_is_what_failed(case):
    weave(case.recipe("tokens"))
    case.fails("coffee")
    with without_ray():
        tally = execute(make_plan(case.recipe("both")))
    assert (tally.rows, tally.failed) == ({case.name: 12}, {case.name: 2})


def test_a_failure_that_tokens_and_labels_tell_of_is_one(case):
    """With one reason where they were made together, with two where they weren't."""
    case.fails("coffee")
    weave(case.recipe("both"))
    assert ([key for key, _ in case.failures()], case.quarantined()) == (["coffee"] * LABELERS[case.name][2], 2)
    other = Case(case.name, case.corpus, case.folder / "other")
    other.fails("coffee")
    weave(other.recipe("tokens"))
    other.fails("coffee", "rocket")
    weave(other.recipe("both"))
    told = [key for key, _ in other.failures()]
    assert (told.count("coffee"), told.count("rocket")) == (LABELERS[case.name][2],) * 2
    assert other.quarantined() == 4
    other.fails("rocket")
    tally = other.again()
    assert (tally.rows, tally.failed) == ({case.name: 4}, {case.name: 2})
    assert {key for key, _ in other.failures()} == {"rocket"}


def test_what_is_made_of_labels_that_failed_is_mended_with_them(corpus, tmp_path):
    case = Case("grid", corpus, tmp_path)
    weave(case.recipe("tokens"))
    case.fails("all")
    weave(case.recipe("both"))
    mean = {"grid_mean": odd("GridMean")}
    weave(case.recipe("both", beside=mean))
    assert len(missing(case.output, "grid_mean")) == 6
    case.fails()
    assert case.again("grid").failed == {"grid": 0, "grid_mean": 0}
    fresh = Case("grid", corpus, tmp_path / "fresh")
    weave(fresh.recipe("both", beside=mean))
    for name in ("grid", "grid_mean"):
        assert labels_of(case.output, name) == labels_of(fresh.output, name)
    assert verify(case.output, deep=True).faults == []
