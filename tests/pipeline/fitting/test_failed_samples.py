"""Labels of the fitting sample that failed: what is said of them, and when they are tried again."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import odd_labelers
import pytest
from in_process import weave, without_ray
from tokenloom.pipeline import run as running
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.cli import main
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.fitting.job import FitError
from tokenloom.pipeline.plan.recipe import Recipe
from tokenloom.pipeline.retry import retry
from tokenloom.pipeline.storage.store import Store
from weaving import failures_of, labels_of, odd, recipe, shards_of

pytestmark = pytest.mark.slow

SMALL = {"units": {"samples": 2}, "views": {"size": 32, "count": 2, "min_scale": 0.5}, "fit": {"units": 2}}
CODES = {"name": "codebook", "params": {"size": 4}}


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """The file that says which samples fail."""
    path = tmp_path / "bad"
    path.write_text("all")
    return path


def made(corpus: Path, output: Path | str, bad: Path, keep: str = "tokens", **more: Any) -> Recipe:
    settings = {"tokenizer": CODES, "params": {"file": str(bad)}, "keep": keep}
    return recipe(corpus, output, {"grid": odd("FailsFor", **settings)}, **{**SMALL, **more})


def good(corpus: Path, tmp_path: Path, bad: Path, keep: str = "tokens") -> dict[str, str]:
    """The shards of a dataset of which nothing failed."""
    bad.write_text("")
    weave(made(corpus, tmp_path / "good", bad, keep))
    return shards_of(tmp_path / "good")


def die(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def weave_until(step: str, wanted: Recipe, dying: Callable[..., None] = die) -> None:
    """A run that is killed where it would call a function of `pipeline.run`, unless it ends before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, step, dying)
        with pytest.raises((KeyboardInterrupt, FitError)):
            weave(wanted)


@pytest.mark.parametrize("keep", ["tokens", "both"])
def test_where_all_failed_the_cause_is_told_and_once_it_is_mended_the_same_run_succeeds(keep, corpus, tmp_path, bad):
    wanted = made(corpus, tmp_path / "out", bad, keep)
    for _ in range(2):
        with pytest.raises(
            FitError, match=r"modalities\.grid: .* 8 of 8 labels of the sample failed, the first "
        ) as told:
            weave(wanted)
        assert "AttributeError: module 'cv2' has no attribute 'cvtColour'" in str(told.value)
    expected = good(corpus, tmp_path, bad, keep)
    weave(wanted)
    assert shards_of(tmp_path / "out") == expected
    assert verify(tmp_path / "out", deep=True).faults == []


@pytest.mark.parametrize("keep", ["tokens", "both"])
@pytest.mark.parametrize("which", ["all", "coffee", "coffee rocket"])
def test_what_failed_before_a_kill_is_tried_again_as_long_as_nothing_is_fitted_to_it(
    which, keep, corpus, tmp_path, bad
):
    wanted = made(corpus, tmp_path / "out", bad, keep, fit={"units": 16})
    bad.write_text(which)
    weave_until("provide_tokenizer", wanted)
    bad.write_text("")
    weave(wanted)
    assert failures_of(tmp_path / "out", "grid") == []
    assert verify(tmp_path / "out", deep=True).faults == []


@pytest.mark.parametrize("keep", ["tokens", "both"])
def test_what_failed_stays_once_a_tokenizer_is_fitted_to_the_others(keep, corpus, tmp_path, bad):
    bad.write_text("coffee rocket")
    weave(made(corpus, tmp_path / "whole", bad, keep, fit={"units": 16}, max_failures=0.5))
    wanted = made(corpus, tmp_path / "out", bad, keep, fit={"units": 16}, max_failures=0.5)
    weave_until("remove_sample", wanted)  # the tokenizer is there then, and not one shard
    bad.write_text("")
    weave(wanted)
    assert shards_of(tmp_path / "out") == shards_of(tmp_path / "whole")  # nor is the sample left
    assert {one.key for one in failures_of(tmp_path / "out", "grid")} == {"coffee", "rocket"}


def test_what_failed_stays_once_a_training_has_begun_with_the_others(corpus, tmp_path, bad):
    bad.write_text("coffee")
    wanted = made(corpus, tmp_path / "out", bad, fit={"units": 16})

    def begin(store: Store, modality: str, card: Any, seed: int, sample: str, *_: Any) -> None:
        store.create(f"fit/_{modality}/{sample}/checkpoints/0-1.json", b"{}")
        die()

    weave_until("provide_tokenizer", wanted, begin)
    bad.write_text("")
    weave(wanted)
    assert {one.key for one in failures_of(tmp_path / "out", "grid")} == {"coffee"}


@pytest.mark.parametrize("keep", ["tokens", "both"])
def test_a_replacement_of_which_all_failed_leaves_the_old_and_is_finished_once_mended(keep, corpus, tmp_path, bad):
    expected = good(corpus, tmp_path, bad, keep)
    anew = made(corpus, tmp_path / "good", bad, keep, seed=0)
    anew.modalities["grid"].params["of"] = 2
    bad.write_text("all")
    for replacing in (["grid"], []):
        with pytest.raises(FitError, match="8 of 8 labels"):
            weave(anew, replacing)
        assert len(list(open_dataset(tmp_path / "good"))) == 12
        assert expected.items() <= shards_of(tmp_path / "good").items()
    bad.write_text("")
    weave(anew)
    assert failures_of(tmp_path / "good", "grid") == []
    assert verify(tmp_path / "good", deep=True).faults == []


@pytest.mark.parametrize("keep", ["tokens", "labels"])
def test_what_is_made_from_it_is_tried_again_with_it(keep, corpus, tmp_path, bad):
    first = {"labeler": "odd_labelers:FailsFor", "params": {"file": str(bad)}, "keep": keep}
    if keep == "tokens":
        first["tokenizer"] = CODES
    means = odd("GridMean", keep="both", tokenizer={"name": "product_codebook", "params": {"size": 2}})
    wanted = recipe(corpus, tmp_path / "out", {"grid": first, "grid_mean": means}, **SMALL)
    with pytest.raises(FitError, match=r"first .*: AttributeError: .*cvtColour"):
        weave(wanted)
    bad.write_text("")
    weave(wanted)
    for name in ("grid", "grid_mean"):
        assert failures_of(tmp_path / "out", name) == []


def test_of_labels_that_the_dataset_keeps_a_retry_is_advised_that_helps(corpus, tmp_path, bad):
    labels = recipe(
        corpus,
        tmp_path / "out",
        {"grid": odd("FailsFor", params={"file": str(bad)})},
        max_failures=1.0,
        **SMALL,
    )
    weave(labels)
    both = made(corpus, tmp_path / "out", bad, "both")
    with pytest.raises(FitError, match="8 of 8 labels") as told:
        weave(both, ["grid"])
    assert f"have `tokenloom quarantine {tmp_path / 'out'} --retry` try them again" in str(told.value)
    bad.write_text("")
    with without_ray():
        retry(str(tmp_path / "out"))
    weave(both)
    assert failures_of(tmp_path / "out", "grid") == []
    assert verify(tmp_path / "out", deep=True).faults == []


def test_failures_of_whole_images_and_some_of_them_are_counted(corpus, tmp_path, bad):
    settings = {"params": {"file": str(bad)}, "keep": "tokens", "tokenizer": {"name": "product_codebook", "params": {}}}
    wanted = recipe(corpus, tmp_path / "out", {"whole": odd("WholeFailsFor", **settings)}, **SMALL)
    with pytest.raises(FitError, match=r"modalities\.whole: .* 4 of 4 labels of the sample failed, the first "):
        weave(wanted)


def test_a_vocabulary_is_not_trained_on_texts_that_all_failed(corpus, tmp_path, bad, monkeypatch):
    wanted = recipe(corpus, tmp_path / "out", {"caption": {}}, **SMALL)
    with monkeypatch.context() as patch:
        from tokenloom.labelers.caption import Caption

        patch.setattr(Caption, "label", lambda *_: 1 / 0)
        with pytest.raises(FitError, match=r"modalities\.caption: .* 4 of 4 .*: ZeroDivisionError: division by zero"):
            weave(wanted)
    weave(wanted)
    assert failures_of(tmp_path / "out", "caption") == []


def test_some_that_failed_are_told_where_the_others_are_too_few(corpus, tmp_path, bad, monkeypatch):
    bad.write_text("coffee")
    monkeypatch.setattr(odd_labelers.Grid, "label", lambda self, batch: {"grid": [None for _ in batch.keys]})
    wanted = made(corpus, tmp_path / "out", bad, fit={"units": 16})
    with pytest.raises(
        FitError, match=r"other than zero\. 2 of 12 labels of the sample failed, the first coffee, view 0: "
    ):
        weave(wanted)


def test_the_command_says_it_in_one_line(corpus, tmp_path, bad, monkeypatch):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"corpus: {corpus}\noutput: {tmp_path}/out\nunits: {{samples: 2}}\nviews: {{size: 32}}\nmodalities:\n  grid:\n"
        f"    labeler: odd_labelers:FailsFor\n    params: {{file: {bad}}}\n    tokenizer: codebook\n"
    )
    monkeypatch.setattr(sys, "argv", ["tokenloom", "run", str(file)])
    with without_ray(), redirect_stderr(io.StringIO()) as err, pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    lines = [line for line in err.getvalue().splitlines() if "6 of 6 labels" in line]
    assert len(lines) == 1
    assert lines[0].endswith("Mend that, and run the recipe again, which tries them again")


@pytest.mark.parametrize("way", ["fit", "keep"])
def test_where_none_failed_each_of_the_ways_out_works(way, corpus, tmp_path, bad, monkeypatch):
    """The first units of the sample have no labels, as faces have none where nobody is."""
    bad.write_text("")
    label = odd_labelers.Grid.label
    monkeypatch.setattr(
        odd_labelers.Grid,
        "label",
        lambda self, batch: {
            "grid": [
                one if key == "flower" else None
                for key, one in zip(batch.keys, label(self, batch)["grid"], strict=True)
            ]
        },
    )
    wanted = made(corpus, tmp_path / "out", bad, fit={"units": 1})
    with pytest.raises(
        FitError,
        match=r"the labels of 1 unit: .*`fit: \{units: .*, or give grid `keep: labels`, both with --replace grid",
    ):
        weave(wanted)
    after = made(corpus, tmp_path / "out", bad, fit={"units": 3})
    if way == "keep":
        after = recipe(corpus, tmp_path / "out", {"grid": odd("FailsFor", params={"file": str(bad)})}, **SMALL)
    weave(after, ["grid"])
    if way == "fit":
        assert [row.key for row in open_dataset(tmp_path / "out") if row.values["grid"] is not None] == ["flower"] * 2
    else:
        assert labels_of(tmp_path / "out", "grid")["flower", 0] is not None
