"""What a retry has mended is taken over by whatever is made later, be it another generation of tokens, labels that are
kept again, or what was begun before."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import odd_labelers
import pytest
from in_process import weave
from test_labels_beside_tokens import Case
from test_retry import MORE, again, waits_for
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import DatasetError, require_manifest
from tokenloom.pipeline.engine.tally import TooManyFailuresError
from tokenloom.pipeline.storage.store import Store
from weaving import card_of, digests, labels_of, odd, recipe

pytestmark = pytest.mark.slow


ALL = {"units": 9}
"""A fitting sample of the whole corpus."""


def nulls(output: Path) -> dict[str, set[str]]:
    """The samples that lack tokens or labels, by modality and which of them."""
    dataset, found = open_dataset(output), {}
    for name, info in dataset.modalities.items():
        for labels in [False] * info.has_tokens + [True] * info.has_labels:
            rows = dataset.iterate([name], labels=[name] if labels else False)
            found[f"{name}.{'labels' if labels else 'tokens'}"] = {r.key for r in rows if r.values[name] is None}
    return found


def kept_no_more(name: str, corpus: Path, tmp_path: Path) -> Case:
    """Labels of which one failed, kept no more, and that one mended in the tokens."""
    case = Case(name, corpus, tmp_path)
    case.fails("flower")
    weave(case.recipe("both"))
    weave(case.recipe("tokens"), [name])
    case.fails()
    assert sum(case.again().failed.values()) == 0
    return case


MEAN = {"grid_mean": odd("GridMean", keep="both")}
LATER = {
    "another tokenizer": [("grid", "tokens", {"size": 3})],
    "another tokenizer, and labels": [("whole", "both", {"size": 3})],
    "another sample": [("grid", "both", {"fit": {"units": 1}})],
    "labels alone": [("whole", "labels", {})],
    "a dependant": [("grid", "labels", {"beside": MEAN})],
    "a third tokenizer": [("grid", "tokens", {"size": 3}), ("grid", "both", {"size": 2})],
    "back again": [("grid", "tokens", {"size": 3, "of": 2}), ("grid", "labels", {})],
    "back to the first": [("whole", "tokens", {"size": 3, "of": 2}), ("whole", "both", {"size": 3})],
}


@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
def test_labels_of_the_first_try_are_not_taken(later, corpus, tmp_path):
    case = kept_no_more(later[0][0], corpus, tmp_path)
    for name, keep, more in later:
        weave(case.recipe(keep, **more), [name])
        assert set().union(*nulls(case.output).values()) == set()
    assert case.failures() == []
    assert weave(case.recipe(keep, **more)).units == 0
    assert verify(case.output, deep=True).faults == []


def test_what_has_nothing_to_do_with_it_is_not_made_again(corpus, tmp_path):
    """Labels of other settings, though there are second tries of that modality; nor what is there of other units."""
    case = kept_no_more("grid", corpus, tmp_path)
    other = {"size": 3, "of": 2}
    weave(case.recipe("both", **other), ["grid"])
    fresh = Case("grid", corpus, tmp_path)
    fresh.output = tmp_path / "fresh"
    weave(fresh.recipe("both", **other))
    made = {name: digest for name, digest in digests(fresh.output).items() if name.startswith(("grid/", "tokenizers/"))}
    assert made.items() <= digests(case.output).items()
    assert weave(case.recipe("both", size=2, of=2), ["grid"]).decodes == 0


# --- what is made from it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["labels", "tokens", "both"])
@pytest.mark.parametrize("chosen", [(), ("grid",)])
def test_a_dependant_that_lacks_the_unit_is_made_of_what_was_mended(chosen, keep, corpus, tmp_path):
    """Also where it had been labelled, and put aside, for the fitting sample."""
    case = Case("grid", corpus, tmp_path)
    case.fails("rocket")
    weave(case.recipe("both", fit=ALL))
    both = case.recipe("both", beside={"grid_mean": odd("GridMean", keep=keep)}, fit=ALL)
    weave(both, limit=1)
    case.fails()
    assert case.again(*chosen).failed == {"grid": 0}
    weave(both)
    assert set().union(*nulls(case.output).values()) == set()
    assert case.failures() == []
    assert verify(case.output, deep=True).faults == []


def test_what_is_there_of_dependants_is_made_again_beside_what_is_not(corpus, tmp_path):
    """Here what was made without the label, which it may lack, beside what needs it."""
    modalities = {"mean_colour": {**waits_for(tmp_path, "WaitsFor", "now"), "keep": "labels"}}
    modalities |= {"known": odd("TellsWhatItKnows"), "doubled": odd("Doubled")}
    weave(recipe(corpus, tmp_path / "out", modalities, **MORE))
    for lost in (tmp_path / "out" / "doubled").rglob("*.tar"):
        lost.unlink()
    (tmp_path / "now").touch()
    tally = again(tmp_path / "out")
    assert (tally.rows, tally.failed) == ({"mean_colour": 1, "known": 1}, {"mean_colour": 0, "known": 0})
    weave(recipe(corpus, tmp_path / "out", modalities, **MORE))
    assert nulls(tmp_path / "out") == {f"{name}.labels": set() for name in modalities}
    assert verify(tmp_path / "out", deep=True).faults == []


def test_a_dependant_that_is_half_done_is_finished_first(corpus, tmp_path):
    case = Case("grid", corpus, tmp_path)
    case.fails("china")
    made = case.recipe("both", beside=MEAN)
    weave(made)
    for tokens in (case.output / "grid_mean").glob("tokens-*/*"):
        tokens.unlink()
    case.fails()
    before = digests(case.output)
    with pytest.raises(DatasetError, match="an earlier try of grid_mean was stopped half way"):
        case.again()
    assert digests(case.output) == before
    weave(made)
    assert case.again().failed == {"grid": 0, "grid_mean": 0}
    assert set().union(*nulls(case.output).values()) == set()
    assert verify(case.output, deep=True).faults == []


def test_what_was_put_aside_of_other_units_is_not_made_again(corpus, tmp_path, monkeypatch):
    asked, label = Counter(), odd_labelers.GridMean.label

    def count(self: Any, batch: Any) -> Any:
        asked.update(batch.keys)
        return label(self, batch)

    monkeypatch.setattr(odd_labelers.GridMean, "label", count)
    case = Case("grid", corpus, tmp_path)
    case.fails("rocket")
    weave(case.recipe("both", fit=ALL))
    both = case.recipe("both", beside={"grid_mean": odd("GridMean", keep="tokens")}, fit=ALL)
    weave(both, limit=1)
    case.fails()
    case.again()
    weave(both)
    assert asked["rocket"] == 1  # before it was mended there was nothing to make it of
    assert asked.total() == 6 + 1  # the other one of its unit
    assert nulls(case.output)["grid_mean.tokens"] == set()


# --- what is being made anew ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["grid", "whole"])
def test_what_failed_too_much_to_be_handed_over_is_tried_again(name, corpus, tmp_path):
    case = Case(name, corpus, tmp_path)
    weave(case.recipe("tokens"))
    case.fails("all")
    with pytest.raises(TooManyFailuresError):
        weave(case.recipe("both", max_failures=0.5))
    case.fails()
    assert case.again().failed == {name: 0}
    weave(case.recipe("both", max_failures=0.0))
    assert nulls(case.output) == {f"{name}.tokens": set(), f"{name}.labels": set()}
    assert verify(case.output, deep=True).faults == []


@pytest.mark.parametrize("needs", [True, False])
def test_a_replacement_that_was_begun_is_made_of_what_was_mended(needs, corpus, tmp_path):
    """Of units that it has already. `known` may lack the label, and doesn't tell that it did."""
    output, name = tmp_path / "out", "doubled" if needs else "known"
    colour = {"mean_colour": {**waits_for(tmp_path, "WaitsFor", "now"), "keep": "labels"}}
    more = {**MORE, "units": {"samples": 1}}
    made = {"doubled": odd("Doubled"), "known": {**waits_for(tmp_path, "KnowsLater", "never"), "keep": "labels"}}
    anew = {"doubled": odd("Doubled", keep="both"), "known": odd("TellsWhatItKnows")}
    weave(recipe(corpus, output, {**colour, name: made[name]}, **more))
    new = recipe(corpus, output, {**colour, name: anew[name]}, **more)
    weave(new, [name], limit=5)
    assert require_manifest(Store(output)).pending.keys() == {name}
    (tmp_path / "now").touch()
    assert again(output, "mean_colour").failed["mean_colour"] == 0
    weave(new)
    weave(recipe(corpus, tmp_path / "fresh", {**colour, name: anew[name]}, **more))
    assert labels_of(output, name) == labels_of(tmp_path / "fresh", name)
    assert nulls(output) == nulls(tmp_path / "fresh")
    assert verify(output, deep=True).faults == []


@pytest.mark.parametrize("dropped", [True, False])
@pytest.mark.parametrize("keep", ["tokens", "both"])
def test_what_readers_have_whole_is_not_made_anew(keep, dropped, corpus, tmp_path):
    """For a second try of what was being made anew, be that dropped or left as it is."""
    case = Case("whole", corpus, tmp_path)
    whole = case.recipe(keep, max_failures=0.0)
    weave(whole)
    before = digests(case.output / "whole")
    case.fails("astronaut")
    weave(case.recipe("tokens", size=3), ["whole"], limit=1)
    case.fails()
    case.again()
    case.fails("all")
    assert weave(whole, ["whole"] if dropped else []).units == 0
    assert before.items() <= digests(case.output / "whole").items()
    assert set().union(*nulls(case.output).values()) == set()


def test_a_unit_that_is_made_again_for_one_value_loses_no_other(corpus, tmp_path):
    """Here since its second try is lost, and there is one of the same labels by another tokenizer."""
    case = Case("whole", corpus, tmp_path)
    case.fails("astronaut")
    weave(case.recipe("tokens"))
    weave(case.recipe("tokens", size=3), ["whole"], limit=1)
    case.fails()
    assert sum(case.again().failed.values()) == 0
    (lost,) = (case.output / f"whole/tokens-{card_of(case.output, 'whole').tokens_generation}").glob("*-r1.*")
    lost.unlink()
    case.fails("chelsea")
    assert weave(case.recipe("tokens")).units == 1
    assert set().union(*nulls(case.output).values()) == set()
    assert (case.failures(), case.quarantined()) == ([], 0)
    weave(case.recipe("tokens"), ["whole"])
    assert verify(case.output, deep=True).faults == []
