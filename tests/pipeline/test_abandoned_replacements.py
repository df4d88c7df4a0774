"""Replacements that were begun and left: what says so, and both ways out of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from in_process import said, weave
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.dataset.manifest import require_manifest
from tokenloom.pipeline.storage.store import Store
from weaving import odd, recipe

pytestmark = pytest.mark.slow
MORE = {"units": {"samples": 3}, "views": {"size": 32}}
SENTENCE = "another recipe has begun to make anew what this one asks for as it is: "
ANEW = "made anew beside the old ones"


@pytest.fixture(params=[["mean_colour"], ["mean_colour", "doubled"]], ids=["alone", "with what is made from it"])
def begun(request, corpus, tmp_path) -> tuple[list[str], Path, Path]:
    """Names of what was begun to be made anew; the recipe that readers' data is of, and the other."""
    files = tmp_path / "old.json", tmp_path / "new.json"
    for file, labeler in zip(files, ("MeanColour", "Brighter"), strict=True):
        all_ = {"mean_colour": odd(labeler), "doubled": odd("Doubled"), "thirds": odd("Thirds")}
        chosen = {name: all_[name] for name in [*request.param, "thirds"]}
        made = recipe(corpus, tmp_path / "out", chosen, **MORE)
        file.write_text(json.dumps(made.model_dump(mode="json", exclude_unset=True)))
        if labeler == "MeanColour":
            weave(made)
        else:
            weave(made, ["mean_colour"], limit=3)
    return request.param, *files


def pending(tmp_path: Path) -> list[str]:
    return list(require_manifest(Store(tmp_path / "out")).pending)


def test_a_recipe_that_does_not_ask_for_it_says_both_ways_out(begun, tmp_path):
    names, old, new = begun
    options = " ".join(f"--replace {name}" for name in names)
    for command in (("plan", old, "--calibrate", "0"), ("run", old), ("run", old, "--dry-run")):
        told = said(*command)
        assert SENTENCE + ", ".join(names) in told
        assert f"this one with {options} to drop it" in told
        assert ANEW not in told
    told = said("plan", new, "--calibrate", "0")
    assert SENTENCE not in told
    assert f"{ANEW}, which readers get until all of it is there: {', '.join(names)}" in told
    assert pending(tmp_path) == names
    for command, code in (("verify", 1), ("status", 0)):
        told = said(command, tmp_path / "out", code=code)
        assert "run the recipe that asks for it, without --replace, to finish it" in told
        assert f"with {options}, to drop it" in told


def test_the_recipe_that_asks_for_it_finishes_it(begun, tmp_path):
    names, old, new = begun
    said("run", old)
    assert SENTENCE not in said("run", new)
    assert pending(tmp_path) == []
    assert verify(tmp_path / "out").faults == []
    told = said("plan", new, "--replace", names[0], "--calibrate", "0")
    assert [line for line in told.splitlines() if "nothing to replace" in line] == [
        f"{names[0]}: is as the recipe says; --replace has nothing to replace"
    ]


def test_the_other_one_drops_it(begun, tmp_path):
    names, old, _ = begun
    before = require_manifest(Store(tmp_path / "out")).modalities
    options = [word for name in names for word in ("--replace", name)]
    for command in (("plan", old, *options, "--calibrate", "0"), ("run", old, *options)):
        assert pending(tmp_path) == names
        told = said(*command)
        assert f"made anew no more, so that readers go on getting what they get: {', '.join(names)}" in told
        assert "nothing to replace" not in told
    assert pending(tmp_path) == []
    assert require_manifest(Store(tmp_path / "out")).modalities == before
    assert verify(tmp_path / "out").faults == []
    assert "(new)" not in said("status", tmp_path / "out")
    assert "has nothing to replace" in said("run", old, *options)


def test_what_was_to_be_made_from_it_is_dropped_with_it(begun, tmp_path):
    """Though the recipe doesn't name it; what is made from what stays isn't."""
    names, old, _ = begun
    alone = json.loads(old.read_text())
    alone["modalities"] = {"mean_colour": odd("MeanColour")}
    (tmp_path / "alone.json").write_text(json.dumps(alone))
    told = said("run", tmp_path / "alone.json", "--replace", "mean_colour")
    assert f"what they get: {', '.join(names)}" in told
    assert pending(tmp_path) == []
    assert verify(tmp_path / "out").faults == []
