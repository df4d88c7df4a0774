"""`max_failures`: judged by what the dataset holds, so that a second run says of it what the first one said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from in_process import weave, without_ray
from tokenloom.pipeline.checks.quarantine import list_failures
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.cli import main
from tokenloom.pipeline.dataset.manifest import require_manifest
from tokenloom.pipeline.engine.tally import TooManyFailuresError
from tokenloom.pipeline.plan.recipe import Recipe
from tokenloom.pipeline.storage.store import Store
from weaving import missing, odd, recipe

pytestmark = pytest.mark.slow
MORE = {"units": {"samples": 3}, "views": {"size": 32}, "fit": {"units": 2}}
COLOURS = {"mean_colour": odd("MeanColour"), "grey_image": odd("GreyImage"), "thirds": odd("Thirds")}
CODEBOOK = {"name": "codebook", "params": {"size": 4}}


def grid(file: Path, **more: Any) -> dict[str, Any]:
    """All of it fails where the file is there."""
    return {"grid": odd("FailsAfter", params={"file": str(file)}, **more)}


def too_many(made: Recipe, *more: Any, **options: Any) -> str:
    with pytest.raises(TooManyFailuresError) as stopped:
        weave(made, *more, **options)
    return str(stopped.value)


@pytest.mark.parametrize("keep", ["labels", "both"])
@pytest.mark.parametrize("beside", [{}, COLOURS])
def test_a_replacement_that_failed_never_takes_the_good_ones_place(beside, keep, corpus, tmp_path):
    """Not at the second run either, whatever else the recipe makes; raising `max_failures` hands it over."""
    output = tmp_path / "out"
    good, bad = (tmp_path / name for name in ("never", "now"))
    weave(recipe(corpus, output, {**beside, **grid(good, keep=keep, tokenizer=CODEBOOK)}, **MORE))
    before = require_manifest(Store(output)).modalities
    bad.touch()
    new = {**beside, **grid(bad, keep="labels")}
    said = too_many(recipe(corpus, output, new, **MORE), ["grid"])
    assert f"6 of {6 * len(new)} labels failed" in said or "6 of 6 labels of grid failed" in said
    for _ in range(2):
        assert too_many(recipe(corpus, output, new, **MORE)) == said
        assert require_manifest(Store(output)).modalities == before
    told = [failure.modality for failure in list_failures(Store(output))]
    assert told == ["grid (new)"] * 6
    assert [one.object for one in verify(output).faults] == ["grid (new)"]
    weave(recipe(corpus, output, new, max_failures=1, **MORE))
    assert require_manifest(Store(output)).pending == {}
    assert len(missing(output, "grid")) == 6


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("name", ["FailsAfter", "ImageFailsAfter"])
def test_what_failed_is_not_forgotten_by_the_next_run(name, views, corpus, tmp_path):
    """Of labels of views, and of whole images, which fail for all views at once; first alone, then beside others."""
    (tmp_path / "now").touch()
    bad = {"grey" if name.startswith("Image") else "grid": odd(name, params={"file": str(tmp_path / "now")})}
    more = {**MORE, "views": {"size": 32, "count": views}}
    alone, beside = (recipe(corpus, tmp_path / "out", {**bad, **some}, **more) for some in ({}, COLOURS))
    said = too_many(alone)
    assert f"{6 * views} of {6 * views} labels failed" in said
    assert too_many(alone) == said
    said = too_many(beside)
    assert f"{6 * views} of {6 * views} labels of gr" in said or f"{6 * views} of {24 * views} labels failed" in said
    assert too_many(beside) == said


@pytest.mark.parametrize("name", ["FailsAfter", "ImageFailsAfter"])
def test_a_run_is_stopped_on_the_way_by_labels_and_not_by_lines(name, corpus, tmp_path):
    """After three of six samples: 120 labels, of views, or of whole images."""
    (tmp_path / "now").touch()
    bad = {"grey" if name.startswith("Image") else "grid": odd(name, params={"file": str(tmp_path / "now")})}
    made = recipe(corpus, tmp_path / "out", bad, **{**MORE, "views": {"size": 32, "count": 40}})
    assert "120 of 120 labels failed" in too_many(made)
    assert len(list(list_failures(Store(tmp_path / "out")))) in (3, 120)


def test_a_modality_that_fails_is_not_made_good_by_others(corpus, tmp_path):
    (tmp_path / "now").touch()
    others = {**COLOURS, "canny_edge": {"keep": "labels"}}
    weave(recipe(corpus, tmp_path / "out", others, **MORE))
    made = recipe(corpus, tmp_path / "out", {**others, **grid(tmp_path / "now")}, **MORE)
    for _ in range(2):
        assert "6 of 6 labels of grid failed, more than max_failures = 0.25" in too_many(made)


@pytest.mark.parametrize("junk", [3, 9])
def test_what_the_reader_refused_is_not_forgotten(junk, corpus_folder, photos, tmp_path):
    for number in range(junk):
        (corpus_folder / f"z{number}.jpg").write_bytes(photos["coffee"])
        (corpus_folder / f"z{number}.txt").write_bytes(b"\xfa\xfb")
    made = recipe(corpus_folder, tmp_path / "out", COLOURS, **MORE)
    said = too_many(made)
    assert f"{3 * junk} of {3 * (junk + 6)} labels failed" in said
    assert "most of them what the corpus reader refused" in said
    assert too_many(made) == said


def test_a_run_that_was_stopped_is_judged_as_a_whole(corpus, tmp_path):
    """`coffee` is one of the last three of six, and fails."""
    made = recipe(corpus, tmp_path / "out", {"mean_colour": odd("Raises")}, max_failures=0.2, **MORE)
    assert weave(made, limit=3).failed == {"mean_colour": 0}
    assert weave(made).failed == {"mean_colour": 1}
    for _ in range(2):
        assert "1 of 6 labels failed" in too_many(made.model_copy(update={"max_failures": 0.1}))
    assert weave(made).units == 0


def test_what_was_mended_by_a_retry_has_not_failed(corpus, tmp_path):
    from tokenloom.pipeline.retry import retry

    settings = {"mean_colour": odd("WaitsFor", params={"file": str(tmp_path / "now")})}
    made = recipe(corpus, tmp_path / "out", settings, max_failures=0, **MORE)
    too_many(made)
    (tmp_path / "now").touch()
    with without_ray():
        retry(str(tmp_path / "out"))
    assert weave(made).units == 0


def test_the_command_says_it_again(corpus, tmp_path, monkeypatch, capsys):
    made = recipe(corpus, tmp_path / "out", {"mean_colour": odd("Raises")}, **MORE)
    weave(made)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(made.model_dump(mode="json", exclude_unset=True)))
    for most, code in (("0", 1), ("0.1", 1), ("0.2", 0)):
        monkeypatch.setattr(sys, "argv", ["tokenloom", "run", str(path), "--set", f"max_failures={most}"])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code
        assert ("1 of 6 labels failed" in capsys.readouterr().err) == bool(code)
