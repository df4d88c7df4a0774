"""What was made without a label that had failed doesn't count once that is there: it says so, and is made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from in_process import said, weave
from test_retry import MORE, again, waits_for
from tokenloom.pipeline.checks.quarantine import list_failures
from tokenloom.pipeline.checks.status import read_status
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.dataset.failed_labels import count_failed
from tokenloom.pipeline.dataset.ledger import MADE_WITHOUT, Failure, write_ledger
from tokenloom.pipeline.plan.recipe import Recipe
from tokenloom.pipeline.storage.store import Store
from weaving import labels_of, missing, odd, recipe

pytestmark = pytest.mark.slow


class Colours:
    """A colour of which only tokens are kept, and that of `coffee` isn't there `now`, with what is made from it."""

    def __init__(self, corpus: Path, folder: Path, **made: Any) -> None:
        self.corpus, self.folder, self.made = corpus, folder, made
        self.output = folder / "out"

    def recipe(self, size: int = 2, **made: Any) -> Recipe:
        tokenizer = {"name": "product_codebook", "params": {"size": size}}
        colour = {**waits_for(self.folder, "WaitsFor", "now"), "keep": "tokens", "tokenizer": tokenizer}
        modalities = {"mean_colour": colour, **(made or self.made)}
        return recipe(self.corpus, self.output, modalities, max_failures=1.0, **MORE)

    def is_there(self) -> None:
        (self.folder / "now").touch()

    def told(self) -> list[tuple[str, str, str]]:
        return [(one.key, one.modality, one.reason) for one in list_failures(Store(self.output))]

    def check_as_undisturbed(self, recipe: Recipe) -> None:
        """And that nothing is left to do or to tell."""
        fresh = recipe.model_copy(update={"output": str(self.folder / "fresh")})
        weave(fresh)
        for name in recipe.modalities.keys() - {"mean_colour"}:
            assert labels_of(self.output, name) == labels_of(self.folder / "fresh", name)
        assert self.told() == []
        assert weave(recipe).units == 0
        assert verify(self.output, deep=True).faults == []


@pytest.fixture
def colours(small_corpus, tmp_path) -> Colours:
    return Colours(small_corpus, tmp_path, known=odd("TellsWhatItKnows", keep="labels"), doubled=odd("Doubled"))


def test_it_is_made_again_by_the_run_that_makes_the_other(colours):
    weave(colours.recipe())
    assert colours.told() == [
        ("coffee", "mean_colour", "not yet"),
        ("coffee", "known", "made without mean_colour, which failed: not yet"),
        ("coffee", "doubled", "needs mean_colour, which failed: not yet"),
    ]
    assert [one.quarantined for one in read_status(Store(colours.output)).modalities] == [1, 0, 1]
    assert weave(colours.recipe()).units == 0  # there is nothing better yet
    colours.is_there()
    weave(colours.recipe(size=3), ["mean_colour"])
    colours.check_as_undisturbed(colours.recipe(size=3))


@pytest.mark.parametrize("way", ["run", "retry"])
def test_it_is_told_until_it_is_made_again(way, colours):
    weave(colours.recipe())
    colours.is_there()
    only = colours.recipe(size=3)
    only = only.model_copy(update={"modalities": {"mean_colour": only.modalities["mean_colour"]}})
    weave(only, ["mean_colour"])
    assert [one.behind for one in read_status(Store(colours.output)).modalities] == [0, 1, 1]
    assert "known: 1 sample was made without what is there by now" in said("status", colours.output)
    assert {one.object for one in verify(colours.output).faults if one.problem == "stale"} == {"known", "doubled"}
    assert "made without mean_colour, which failed" in said("quarantine", colours.output)
    if way == "retry":
        assert again(colours.output).failed == {"known": 0, "doubled": 0}
    else:
        assert weave(colours.recipe(size=3)).rows == {"known": 1, "doubled": 1}
    colours.check_as_undisturbed(colours.recipe(size=3))


def test_labels_that_were_superseded_are_no_exception(small_corpus, tmp_path):
    colours = Colours(small_corpus, tmp_path)
    (first, second) = ({**waits_for(tmp_path, "KnowsLater", name), "keep": "labels"} for name in "ab")
    for name in "ab":
        (tmp_path / name).touch()
    weave(colours.recipe(known=first))
    weave(colours.recipe(known=second), ["known"])
    colours.is_there()
    again(colours.output)
    weave(colours.recipe(known=first), ["known"])
    colours.check_as_undisturbed(colours.recipe(known=first))


def test_what_hangs_on_it_in_turn(small_corpus, tmp_path):
    """Also where a run makes it alone."""
    known, later = odd("TellsWhatItKnows", keep="labels"), odd("SaysItAgain")
    colours = Colours(small_corpus, tmp_path, known=known, again=later)
    weave(colours.recipe())
    assert [key for key, name, _ in colours.told() if name == "again"] == ["coffee"]
    colours.is_there()
    weave(colours.recipe(size=3, known=known), ["mean_colour"])
    assert missing(colours.output, "known") == set()
    weave(colours.recipe(size=3))
    colours.check_as_undisturbed(colours.recipe(size=3))


def test_what_fails_in_passing_is_tried_once(colours):
    """The tokens are there, and the labels, which aren't kept, fail when they are made again."""
    weave(colours.recipe())
    colours.is_there()
    weave(colours.recipe(size=3, doubled=odd("Doubled")), ["mean_colour"])
    (colours.folder / "now").unlink()
    before = labels_of(colours.output, "known")
    weave(colours.recipe(size=3))
    assert weave(colours.recipe(size=3)).units == 0
    assert labels_of(colours.output, "known") == before
    assert [key for key, name, _ in colours.told() if name == "known"] == ["coffee"]
    colours.is_there()
    again(colours.output)
    colours.check_as_undisturbed(colours.recipe(size=3))


def test_it_is_no_failure():
    note = Failure("a", "known", "made without another", MADE_WITHOUT, "unit", without="another")
    failed = Failure("b", "known", 'a "quoted" reason', "ValueError", "unit")
    ledger = write_ledger([note, failed])
    assert [count_failed(ledgers, 3) for ledgers in ([ledger], [ledger, ledger], [write_ledger([note])])] == [3, 3, 0]
