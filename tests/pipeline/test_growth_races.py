"""Corpora that change while others are at work: who plans, begins and takes up changes at different times."""

from __future__ import annotations

import uuid
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from in_process import weave, without_ray
from lock_step import Driver, LockStep
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.corpus.corpus import CorpusError
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import DatasetError, publish, require_manifest
from tokenloom.pipeline.engine.tally import Tally
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.reconcile import reconcile
from tokenloom.pipeline.run import RunListener, execute
from tokenloom.pipeline.storage.store import Store
from weaving import odd, recipe

pytestmark = pytest.mark.slow
MORE: dict[str, Any] = {"units": {"samples": 3}, "views": {"size": 32}, "fit": {"units": 2}}
CODES = {"labeler": "odd_labelers:Grid", "keep": "both", "tokenizer": {"name": "codebook", "params": {"size": 4}}}
COLOUR = {"mean_colour": odd("MeanColour")}


def keys(output: Path | str) -> list[str]:
    return sorted(row.key for row in open_dataset(str(output)).iterate(labels=True))


def faults(output: Path | str) -> list[str]:
    return [f"{fault.problem} {fault.object}: {fault.what}" for fault in verify(str(output)).faults]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("take_changes", [False, True])
def test_two_runs_that_find_the_corpus_at_different_times(corpus_folder, photos, seed, take_changes):
    output = f"memory://{uuid.uuid4()}"
    made = recipe(corpus_folder, output, COLOUR, **MORE)
    weave(made, limit=2)
    plan = make_plan(made)
    (corpus_folder / "later.jpg").write_bytes(photos["china"])
    if take_changes:
        (corpus_folder / "coffee.txt").write_text("another caption")
    drivers = [Driver(lambda: execute(plan)), Driver(lambda: execute(make_plan(made, take_changes=take_changes)))]
    with without_ray():
        LockStep(*drivers).run(seed)
    assert drivers[1].error is None
    assert not take_changes or isinstance(drivers[0].error, (DatasetError, CorpusError, type(None)))
    weave(made)
    assert len(keys(output)) == len(set(keys(output))) == 7
    assert faults(output) == []


def test_a_run_does_not_report_success_for_what_another_has_retired(corpus_folder, photos, tmp_path):
    made = recipe(corpus_folder, tmp_path / "out", COLOUR, **MORE)
    weave(made)
    (corpus_folder / "sub").mkdir()
    (corpus_folder / "sub" / "later.jpg").write_bytes(photos["coffee"])

    class Meanwhile(RunListener):
        def labelled(self, tally: Tally) -> None:
            next(corpus_folder.glob("*.jpg")).write_bytes(photos["china"][:-7])
            weave(made, take_changes=True)

    with without_ray(), pytest.raises(DatasetError, match="another run has taken up changes of the corpus meanwhile"):
        execute(make_plan(made), listener=Meanwhile())
    weave(made)
    assert faults(tmp_path / "out") == []


@pytest.mark.parametrize("changed", [False, True])
def test_what_another_run_has_begun_since_is_handed_over_by_none_who_has_not_made_it(corpus_folder, tmp_path, changed):
    """A run of what is there and complete, planned before somebody began to make it anew."""
    output, tokens = tmp_path / "out", {**CODES, "keep": "tokens"}
    weave(made := recipe(corpus_folder, output, {"grid": tokens}, **MORE))
    other = make_plan(recipe(corpus_folder, output, {"grid": CODES}, **MORE))
    if changed:
        (corpus_folder / "coffee.jpg").unlink()
    plan, store = make_plan(made), Store(output)
    assert (plan.works, plan.replacing, bool(plan.growth.left)) == ([], [], changed)
    publish(store, lambda now: reconcile(now, other.request))
    refused = pytest.raises(DatasetError, match=r"grid can't be made anew for 1 ") if changed else nullcontext()
    with without_ray(), refused:
        execute(plan)
    assert len(list(open_dataset(output).iterate(["grid"]))) == 6
    assert list(require_manifest(store).pending) == ["grid"]
