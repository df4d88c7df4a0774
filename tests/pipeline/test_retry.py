"""Trying again: only what failed, with what was accepted before, and whatever was made without it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import odd_labelers
import pytest
from in_process import said, weave, without_ray
from lock_step import Driver, Killed, LockStep
from tokenloom.labelers.contract.labeler import Resources, Weights
from tokenloom.pipeline.checks.quarantine import list_failures
from tokenloom.pipeline.checks.status import read_status
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.cluster.session import DEVICE
from tokenloom.pipeline.commands.console import counted
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.engine.tally import Tally
from tokenloom.pipeline.plan.recipe import RecipeError
from tokenloom.pipeline.retry import retry
from tokenloom.pipeline.storage.store import Store
from weaving import digests, labels_of, missing, odd, recipe, shards_of

pytestmark = pytest.mark.slow
MORE = {"units": {"samples": 3}, "views": {"size": 32}}


@pytest.fixture(scope="module")
def corpus(small_corpus: Path) -> Path:
    return small_corpus


def again(output: Path, *modalities: str) -> Tally:
    with without_ray():
        return retry(str(output), modalities)


def waits_for(tmp_path: Path, labeler: str, name: str) -> dict[str, Any]:
    return odd(labeler, params={"file": str(tmp_path / name)})


def test_a_label_that_was_made_without_another_is_made_again_with_it(corpus, tmp_path):
    """As metadata is made without detections where these failed."""
    modalities = {"mean_colour": waits_for(tmp_path, "WaitsFor", "now"), "known": odd("TellsWhatItKnows")}
    weave(recipe(corpus, tmp_path / "out", modalities, **MORE))
    before = labels_of(tmp_path / "out", "known")
    (tmp_path / "now").touch()
    tally = again(tmp_path / "out")
    assert (tally.rows, sum(tally.failed.values())) == ({"mean_colour": 1, "known": 1}, 0)
    after = labels_of(tmp_path / "out", "known")
    assert {key for key, label in after.items() if label != before[key]} == {("coffee", 0)}
    weave(recipe(corpus, tmp_path / "fresh", modalities, **MORE))
    assert after == labels_of(tmp_path / "fresh", "known")
    assert verify(tmp_path / "out", deep=True).faults == []


def test_each_modality_is_tried_for_its_own_failures(corpus, tmp_path):
    """A label that exists stays what it is, though the labeler would fail now."""
    modalities = {
        "mean_colour": waits_for(tmp_path, "WaitsFor", "now"),
        "grid": {**waits_for(tmp_path, "FailsAfter", "now"), "keep": "labels"},
    }
    weave(recipe(corpus, tmp_path / "out", modalities, **MORE))
    kept = labels_of(tmp_path / "out", "grid")
    (tmp_path / "now").touch()
    tally = again(tmp_path / "out")
    assert tally.rows == {"mean_colour": 1}
    assert labels_of(tmp_path / "out", "grid") == kept
    assert list(list_failures(Store(tmp_path / "out"))) == []


def test_two_modalities_that_failed_for_different_samples_keep_what_they_have(corpus, tmp_path):
    modalities = {
        "mean_colour": waits_for(tmp_path, "WaitsFor", "now"),
        "grid": {**waits_for(tmp_path, "GridWaitsForFlower", "later"), "keep": "labels"},
    }
    weave(recipe(corpus, tmp_path / "out", modalities, **MORE))
    (tmp_path / "now").touch()
    tally = again(tmp_path / "out")
    assert (tally.rows, tally.failed) == ({"mean_colour": 1, "grid": 1}, {"mean_colour": 0, "grid": 1})
    assert (missing(tmp_path / "out", "mean_colour"), missing(tmp_path / "out", "grid")) == (set(), {"flower"})
    (tmp_path / "later").touch()
    assert again(tmp_path / "out").rows == {"grid": 1}
    assert missing(tmp_path / "out", "grid") == set()
    assert verify(tmp_path / "out", deep=True).faults == []


def test_what_fails_again_for_another_reason_is_told(corpus, tmp_path):
    weave(recipe(corpus, tmp_path / "out", {"mean_colour": waits_for(tmp_path, "WaitsFor", "now")}, **MORE))
    (tmp_path / "now").write_text("never")
    again(tmp_path / "out")
    (failure,) = list_failures(Store(tmp_path / "out"))
    assert failure.reason == "never"
    before = digests(tmp_path / "out")
    again(tmp_path / "out")
    assert digests(tmp_path / "out") == before


@pytest.mark.parametrize("keep", ["tokens", "labels", "both"])
def test_a_second_try_gives_whatever_is_kept(keep, corpus, tmp_path):
    tokenizer = {"name": "codebook", "params": {"size": 4}}
    settings = {**waits_for(tmp_path, "GridWaitsForFlower", "now"), "keep": keep, "tokenizer": tokenizer}
    made = recipe(corpus, tmp_path / "out", {"grid": settings}, **MORE)
    weave(made)
    opened = open_dataset(tmp_path / "out")
    (tmp_path / "now").touch()
    again(tmp_path / "out")
    rows = list(open_dataset(tmp_path / "out").iterate(["grid"], labels=keep == "labels"))
    assert {row.key for row in rows if row.values["grid"] is None} == set()
    assert {row.key for row in opened.iterate(["grid"], labels=keep == "labels") if row.values["grid"] is None} == set()
    assert verify(tmp_path / "out", deep=True).faults == []
    assert weave(made).units == 0


def test_licences_that_were_accepted_still_are(corpus, tmp_path, monkeypatch):
    from odd_labelers import Weighty

    licence = "CC-BY-NC-4.0"
    monkeypatch.setattr(Weighty, "weights", Weights("example/weighty", licence, "https://example.org"))
    weights = tmp_path / "weights"
    weights.write_bytes(b"!")
    settings = {"labeler": "odd_labelers:Weighty", "weights": str(weights), "keep": "labels"}
    with pytest.raises(RecipeError, match="accept_license"):
        weave(recipe(corpus, tmp_path / "out", {"mean_colour": settings}, **MORE))
    weave(recipe(corpus, tmp_path / "out", {"mean_colour": settings}, accept_license=licence, **MORE))
    assert again(tmp_path / "out").rows == {}


def test_a_ledger_that_cannot_be_read_is_named(corpus, tmp_path):
    weave(recipe(corpus, tmp_path / "out", {"mean_colour": waits_for(tmp_path, "WaitsFor", "now")}, **MORE))
    (ledger,) = (tmp_path / "out/quarantine").rglob("*.jsonl")
    ledger.write_bytes(ledger.read_bytes()[:-9])
    with pytest.raises(DatasetError, match=rf"{ledger.name}: line 1: .*tokenloom verify"):
        again(tmp_path / "out")


def test_a_corpus_that_moved_gives_the_same_bytes(corpus_tar, tmp_path):
    """Also where it is broken: what the quarantine tells of it names no place."""
    colour = {"mean_colour": odd("MeanColour")}
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "photos.tar").write_bytes(corpus_tar.read_bytes()[:200_000] + b"?" * 1000)
        weave(
            recipe(
                tmp_path / place, tmp_path / f"out-{place}", {"mean_colour": odd("MeanColour")}, max_failures=1, **MORE
            )
        )
    here, there = (shards_of(tmp_path / f"out-{place}") for place in ("here", "there"))
    assert any(name.startswith("quarantine/corpus/") for name in here)
    assert here == there
    shutil.rmtree(tmp_path / "here")
    moved = recipe(tmp_path / "there", tmp_path / "out-here", colour, max_failures=1, **MORE)
    assert weave(moved).units == 0
    assert again(tmp_path / "out-here").rows == {}


# --- beside other changes ---------------------------------------------------------------------------------------------


def grid(tmp_path: Path, size: int, keep: str = "both") -> dict[str, Any]:
    tokenizer = {"name": "codebook", "params": {"size": size}}
    return {"grid": {**waits_for(tmp_path, "GridWaitsForFlower", "now"), "keep": keep, "tokenizer": tokenizer}}


def flower_of(output: Path, **more: Any) -> Any:
    return next(row for row in open_dataset(output).iterate(["grid"], **more) if row.key == "flower").values["grid"]


def test_what_is_stale_is_not_tried_again(corpus, tmp_path):
    """Its new labels would be made from something else than the others."""
    modalities = {"mean_colour": odd("MeanColour"), "known": waits_for(tmp_path, "KnowsLater", "now")}
    weave(recipe(corpus, tmp_path / "out", modalities, **MORE))
    weave(recipe(corpus, tmp_path / "out", {"mean_colour": odd("Brighter")}, **MORE), ["mean_colour"])
    (tmp_path / "now").touch()
    before = digests(tmp_path / "out")
    with pytest.raises(DatasetError, match=r"known is stale: it was made from mean_colour as it was before"):
        again(tmp_path / "out")
    assert digests(tmp_path / "out") == before


def test_a_try_that_was_stopped_half_way_is_finished_by_a_run(corpus, tmp_path):
    made = recipe(corpus, tmp_path / "out", grid(tmp_path, 4), **MORE)
    weave(made)
    (tmp_path / "now").touch()
    again(tmp_path / "out")
    (tokens,) = (tmp_path / "out/grid").glob("tokens-*/*-r1.parquet")
    data = tokens.read_bytes()
    tokens.unlink()
    assert flower_of(tmp_path / "out") is None
    with pytest.raises(DatasetError, match="an earlier try of grid was stopped half way"):
        again(tmp_path / "out")
    assert weave(made).decodes == 0
    assert tokens.read_bytes() == data
    assert flower_of(tmp_path / "out") is not None


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_retry_killed_before_any_operation_is_made_good_by_the_next(gpus, corpus, tmp_path, monkeypatch):
    """In one stage, and with a pool of its own for the labeler that the other hangs on."""
    monkeypatch.setattr(odd_labelers.WaitsFor, "resources", Resources(cpus=1.0, gpus=1.0))
    monkeypatch.setenv(DEVICE, "cpu")
    modalities = {"mean_colour": waits_for(tmp_path, "WaitsFor", "now"), "known": odd("TellsWhatItKnows")}
    (tmp_path / "now").touch()
    weave(recipe(corpus, tmp_path / "fresh", modalities, **MORE))
    wanted, step = labels_of(tmp_path / "fresh", "known"), 0
    (tmp_path / "now").unlink()
    weave(recipe(corpus, tmp_path / "failed", modalities, **MORE))
    (tmp_path / "now").touch()
    while True:
        output = Path(shutil.copytree(tmp_path / "failed", tmp_path / f"out-{step}"))
        one = Driver(lambda output=output: retry(str(output)), dies_at=step)
        with without_ray(gpus):
            LockStep(one).run(0)
        if one.error is None:
            break
        assert isinstance(one.error, Killed)
        begun = {f"retries/{entry.name}" for entry in Store(output).list("retries")}
        assert begun <= {fault.object for fault in verify(output).faults if "--retry" in fault.way_out}
        with without_ray(gpus):
            retry(str(output))
        assert labels_of(output, "known") == wanted, step
        assert verify(output).faults == []
        step += 1
    assert step > 10


# --- what there is to try ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["labels", "tokens", "both"])
@pytest.mark.parametrize("retried", [False, True])
def test_failures_of_what_counts_no_more_are_none(retried, keep, corpus_folder, tmp_path):
    """Of a photograph that was mended, and of one whose failure a retry had mended before."""
    output, tokenizer = tmp_path / "out", {"name": "codebook", "params": {"size": 4}}
    settings = {**waits_for(tmp_path, "GridWaitsForFlower", "now"), "keep": keep, "tokenizer": tokenizer}
    made = recipe(corpus_folder, output, {"grid": settings}, max_failures=0.6, **MORE)
    good = (corpus_folder / "rocket.jpg").read_bytes()
    (corpus_folder / "rocket.jpg").write_bytes(good[:100])
    weave(made)
    assert {failure.key for failure in list_failures(Store(output))} == {"flower", "rocket"}
    if retried:
        (tmp_path / "now").touch()
        again(output)
        assert {failure.key for failure in list_failures(Store(output))} == {"rocket"}
        (tmp_path / "now").unlink()
    (corpus_folder / "rocket.jpg").write_bytes(good)
    weave(made, take_changes=True)
    assert {failure.key for failure in list_failures(Store(output))} == {"flower"}
    assert [one.quarantined for one in read_status(Store(output)).modalities] == [1]
    (tmp_path / "now").touch()
    assert again(output).failed == {"grid": 0}
    assert said("quarantine", output) == "nothing is in quarantine\n"
    assert "nothing to try again" in said("quarantine", output, "--retry")
    assert verify(output, deep=True).faults == []


def test_only_modalities_that_there_are_are_tried(corpus, tmp_path):
    weave(recipe(corpus, tmp_path / "out", {"mean_colour": odd("Raises")}, **MORE))
    for more in ((), ("--retry",)):
        told = said("quarantine", tmp_path / "out", "--modality", "nosuch", *more, code=2)
        assert "there is no modality 'nosuch'; it has mean_colour" in told


def test_what_is_stale_hinders_only_what_it_has_to_do_with(corpus, tmp_path):
    """A stale modality without failures, made from one that has some, and beside another that has."""
    modalities = {"mean_colour": odd("MeanColour"), "doubled": odd("Doubled")}
    weave(recipe(corpus, tmp_path / "out", modalities, **MORE))
    changed = {"mean_colour": odd("Brighter")}
    weave(recipe(corpus, tmp_path / "out", changed, **MORE), ["mean_colour"])
    assert "nothing to try again" in said("quarantine", tmp_path / "out", "--retry")
    grid_alone = {"grid": {**waits_for(tmp_path, "GridWaitsForFlower", "now"), "keep": "labels"}}
    weave(recipe(corpus, tmp_path / "out", grid_alone, **MORE))
    (tmp_path / "now").touch()
    assert again(tmp_path / "out").failed == {"grid": 0}
    failing = {"mean_colour": waits_for(tmp_path, "WaitsFor", "later")}
    weave(recipe(corpus, tmp_path / "out", failing, **MORE), ["mean_colour"])
    (tmp_path / "later").touch()
    with pytest.raises(DatasetError, match="doubled is stale: it was made from mean_colour as it was before") as told:
        again(tmp_path / "out")
    assert "--modality" not in str(told.value)


def test_what_can_be_tried_beside_what_is_stale_is_named(corpus, tmp_path):
    modalities = {
        "mean_colour": odd("MeanColour"),
        "known": waits_for(tmp_path, "KnowsLater", "now"),
        "grid": {**waits_for(tmp_path, "GridWaitsForFlower", "now"), "keep": "labels"},
    }
    weave(recipe(corpus, tmp_path / "out", modalities, **MORE))
    weave(recipe(corpus, tmp_path / "out", {"mean_colour": odd("Brighter")}, **MORE), ["mean_colour"])
    (tmp_path / "now").touch()
    told = said("quarantine", tmp_path / "out", "--retry", code=2)
    assert "try the others alone: --modality grid" in told
    assert "1 of 1 label made" in said("quarantine", tmp_path / "out", "--retry", "--modality", "grid")


def test_a_photograph_that_was_mended_is_taken_up_before_it_is_tried(corpus_folder, tmp_path):
    made = recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("MeanColour")}, **MORE)
    good = (corpus_folder / "rocket.jpg").read_bytes()
    (corpus_folder / "rocket.jpg").write_bytes(good[:100])
    weave(made)
    (corpus_folder / "rocket.jpg").write_bytes(good)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(made.model_dump(mode="json", exclude_unset=True)))
    told = said("quarantine", tmp_path / "out", "--retry", code=2)
    assert "rocket.jpg has changed, or is gone" in told
    assert "run the recipe with --take-changes" in told
    said("run", path, "--take-changes")
    assert "nothing to try again" in said("quarantine", tmp_path / "out", "--retry")


@pytest.mark.parametrize("failing", [False, True])
def test_what_the_corpus_reader_refused_is_told_of_and_not_tried(failing, corpus_folder, tmp_path):
    for number in range(2):
        (corpus_folder / f"z{number}.jpg").write_bytes((corpus_folder / "coffee.jpg").read_bytes())
        (corpus_folder / f"z{number}.txt").write_bytes(b"\xfa\xfb")
    settings = waits_for(tmp_path, "WaitsFor", "now") if failing else odd("MeanColour")
    weave(recipe(corpus_folder, tmp_path / "out", {"mean_colour": settings}, max_failures=0.6, **MORE))
    (tmp_path / "now").touch()
    told = said("quarantine", tmp_path / "out", "--retry")
    assert ("1 of 1 label made, 0 failed again" in told) == failing
    assert "what the corpus reader refused isn't tried again (2 samples refused by the corpus reader)" in told
    assert "--take-changes" in told
    assert ("nothing to try again" in told) != failing


@pytest.mark.parametrize("keep", ["labels", "both"])
@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize(
    ("labeler", "name"), [("WaitsFor", "mean_colour"), ("ImageWaitsFor", "whole"), ("ViewWaitsFor", "last")]
)
def test_labels_that_failed_are_one_number_everywhere(labeler, name, views, keep, corpus, tmp_path):
    """For a sample's views, for all of them at once, and for one of them: of a run, in `status`, of `max_failures`, and
    of a retry that mends nothing, and one that mends all."""
    count = {"WaitsFor": views, "ImageWaitsFor": views, "ViewWaitsFor": 6 if views == 3 else 0}[labeler]
    settings = {**waits_for(tmp_path, labeler, "now"), "keep": keep}
    made = recipe(
        corpus, tmp_path / "out", {name: settings}, max_failures=1, **{**MORE, "views": {"size": 32, "count": views}}
    )
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(made.model_dump(mode="json", exclude_unset=True)))
    told = said("run", path)
    labels = counted(count, "label")
    assert (f"; {labels} quarantined" in told) == bool(count)
    assert [one.quarantined for one in read_status(Store(tmp_path / "out")).modalities] == [count]
    if count:
        assert f"{count} of {6 * views} labels failed" in said("run", path, "--set", "max_failures=0", code=1)
        retried = said("quarantine", tmp_path / "out", "--retry")
        assert f"0 of {labels} made, {count} failed again" in retried
    (tmp_path / "now").touch()
    retried = said("quarantine", tmp_path / "out", "--retry")
    assert (f"{count} of {labels} made, 0 failed again" if count else "nothing to try again") in retried
    assert [one.quarantined for one in read_status(Store(tmp_path / "out")).modalities] == [0]


def test_an_address_with_credentials_is_used_and_not_shown(corpus, tmp_path, monkeypatch):
    """Never one without them in its place: all that is asked for has them."""
    address = f"memory://me:hunter2@{tmp_path.name}/out"
    modalities = {"mean_colour": waits_for(tmp_path, "WaitsFor", "now"), "caption": {"keep": "labels"}}
    weave(recipe(corpus, address, modalities, **MORE))
    (tmp_path / "now").touch()
    monkeypatch.chdir(tmp_path)
    told = said("quarantine", address, "--retry")
    assert "1 of 1 label made" in told
    for words in (("status", address), ("verify", address), ("preview", address), ("quarantine", address, "--retry")):
        told += said(*words)
    assert all(
        Store(address).exists(path.partition("/out/")[2]) for path in open_dataset(address).files("caption", True)
    )
    shown = Store(address).url
    told += said("quarantine", address, "--modality", "x", "--retry", code=2) + said("status", shown, code=1)
    assert "hidden in it by ***" in told
    assert "hunter2" not in told.replace(address, "")
    with pytest.raises(RecipeError, match=r"output: .*hidden in it by \*\*\*"):
        recipe(corpus, shown, modalities)
