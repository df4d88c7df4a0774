"""Whole runs on Ray: what they leave, what they do again, and what stops them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tokenloom
import yaml
from tokenloom.labelers.contract.kinds import Image
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.cluster.session import EngineError
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.engine.tally import TooManyFailuresError
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import RecipeError
from tokenloom.pipeline.retry import retry
from tokenloom.pipeline.run import execute
from tokenloom.tokenizers.vq.vq import VQParams, VQTokenizer
from weaving import digests, failures_of, missing, odd, recipe

LIGHT = {
    "rgb": {"tokenizer": {"name": "patch_codebook", "params": {"size": 64}}},
    "caption": {"keep": "both"},
    "color_palette": {"keep": "both"},
    "metadata": {},
}
SMALL = {"views": {"size": 64}, "units": {"samples": 2}}

pytestmark = pytest.mark.usefixtures("ray_session")


def weave(recipe, **more):
    return execute(make_plan(recipe, more.get("replacing", ())), **more)


def test_a_run_is_verified_reproducible_and_done_once(corpus_folder, corpus_tar, tmp_path):
    """Two outputs of one recipe are equal to the byte, whatever the workers' number; a second run does nothing."""
    one = recipe(corpus_folder, tmp_path / "one", LIGHT, **SMALL, resources={"workers": 1})
    two = recipe(corpus_folder, tmp_path / "two", LIGHT, **SMALL, resources={"workers": 2})
    tally = weave(one)
    weave(two)
    assert (tally.samples, tally.units, sum(tally.failed.values())) == (6, 3, 0)
    assert verify(str(tmp_path / "one")).faults == []
    before = digests(tmp_path / "one")
    assert digests(tmp_path / "two") == before
    assert weave(one).units == 0
    assert digests(tmp_path / "one") == before


def test_on_s3_the_same_objects_as_on_disk(corpus_folder, tmp_path, s3_url):
    weave(recipe(corpus_folder, tmp_path / "disk", LIGHT, **SMALL))
    weave(recipe(corpus_folder, f"{s3_url}/out", LIGHT, **SMALL))
    assert digests(f"{s3_url}/out") == digests(tmp_path / "disk")


def test_a_modality_added_later_is_all_that_runs(corpus_folder, tmp_path):
    first = {name: LIGHT[name] for name in ("rgb", "caption", "metadata")}
    weave(recipe(corpus_folder, tmp_path / "later", first, **SMALL))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "later").rglob("*.parquet")}
    tally = weave(recipe(corpus_folder, tmp_path / "later", LIGHT, **SMALL))
    assert list(tally.rows) == ["color_palette"]
    assert {path: path.stat().st_mtime_ns for path in written} == written
    weave(recipe(corpus_folder, tmp_path / "at-once", LIGHT, **SMALL))
    assert digests(tmp_path / "later") == digests(tmp_path / "at-once")


def test_a_caption_added_later_has_the_vocabulary_that_it_would_have_had(corpus_folder, tmp_path):
    for modalities in (["color_palette"], ["color_palette", "caption"]):
        weave(recipe(corpus_folder, tmp_path / "later", dict.fromkeys(modalities), **SMALL))
    weave(recipe(corpus_folder, tmp_path / "at-once", dict.fromkeys(modalities), **SMALL))
    assert digests(tmp_path / "later") == digests(tmp_path / "at-once")
    assert verify(str(tmp_path / "later")).faults == []


def test_given_tokenizers_make_the_tokens(corpus_folder, tmp_path):
    tokenizer = VQTokenizer(Image(), VQParams(encoder="vit_xt_enc", decoder="vit_xt_dec", codes=16))
    tokenizer.finish(tokenizer.design(np.zeros((1, 64, 64, 3), np.uint8), 0), {})
    folder = tmp_path / "given"
    folder.mkdir()
    for name, data in tokenizer.to_files().items():
        (folder / name).write_bytes(data)
    given = {"keep": "both", "tokenizer": {"weights": str(folder)}}
    weave(recipe(corpus_folder, tmp_path / "out", {"rgb": given}, **SMALL))
    dataset = open_dataset(str(tmp_path / "out"))
    rows = list(dataset.iterate(["rgb"]))
    labels = list(dataset.iterate(["rgb"], labels=["rgb"]))
    expected = tokenizer.encode([row.values["rgb"] for row in labels])
    for row, tokens in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(row.values["rgb"], tokens)
    with pytest.raises(RecipeError, match=r"modalities.canny_edge.tokenizer.weights: .*given: .*kind"):
        weave(recipe(corpus_folder, tmp_path / "wrong", {"canny_edge": given}, **SMALL))
    assert not list((tmp_path / "wrong").glob("canny_edge/*"))


def test_tokenizers_are_fitted_to_what_they_will_tokenise(corpus_folder, tmp_path):
    """Labels of whole images differ in size; their tokens, and so what a tokenizer is fitted to, are of views."""
    grey = {"labeler": "odd_labelers:GreyImage", "tokenizer": LIGHT["rgb"]["tokenizer"]}
    tally = weave(recipe(corpus_folder, tmp_path / "grey", {"grey_image": grey}, **SMALL))
    assert sum(tally.failed.values()) == 0
    tokens = tally.cards["grey_image"].tokens
    assert tokens is not None
    assert tokens.spec is not None
    assert tokens.spec.grid == (4, 4)


def test_a_lost_manifest_is_not_guessed(corpus_folder, tmp_path):
    made = recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("MeanColour")})
    weave(made)
    (tmp_path / "out" / "dataset.json").unlink()
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        make_plan(made)


def test_lost_shards_are_made_again_and_nothing_else(corpus_folder, tmp_path):
    made = recipe(corpus_folder, tmp_path / "out", LIGHT, **SMALL)
    weave(made)
    before = digests(tmp_path / "out")
    lost = sorted((tmp_path / "out" / "caption").glob("*.tar"))[1]
    lost.unlink()
    tally = weave(made)
    assert (tally.units, tally.rows) == (1, {"caption": 2})
    assert digests(tmp_path / "out") == before


def test_a_changed_parameter_stops_the_run_and_replace_is_the_way_on(corpus_folder, tmp_path):
    modalities = {"mean_colour": odd("MeanColour"), "doubled": odd("Doubled"), "canny_edge": {"keep": "labels"}}
    weave(recipe(corpus_folder, tmp_path / "out", modalities))
    changed = recipe(
        corpus_folder, tmp_path / "out", {**modalities, "canny_edge": {"keep": "labels", "params": {"low": 50}}}
    )
    with pytest.raises(DatasetError, match=r"canny_edge was made differently:\n  params.low: 100.* -> 50") as error:
        make_plan(changed)
    assert "--replace canny_edge" in str(error.value)
    tally = weave(changed, replacing=["canny_edge"])
    assert list(tally.rows) == ["canny_edge"]
    assert verify(str(tmp_path / "out")).faults == []


def test_a_sample_that_kills_its_process_is_quarantined_alone(corpus_folder, tmp_path):
    modalities = {"mean_colour": odd("Aborts"), "caption": {"keep": "labels"}}
    weave(recipe(corpus_folder, tmp_path / "out", modalities, resources={"workers": 1}))
    assert missing(tmp_path / "out", "mean_colour") == {"coffee"}
    assert missing(tmp_path / "out", "caption") == set()
    (failure,) = failures_of(tmp_path / "out", "mean_colour")
    assert (failure.key, failure.error) == ("coffee", "ProcessDied")
    assert verify(str(tmp_path / "out")).faults == []


def test_quarantined_samples_are_tried_again_alone(corpus_folder, tmp_path):
    modalities = {
        "mean_colour": odd("WaitsFor", params={"file": str(tmp_path / "now")}),
        "doubled": odd("Doubled"),
        "caption": {},
    }
    made = recipe(corpus_folder, tmp_path / "out", modalities)
    weave(made)
    assert missing(tmp_path / "out", "doubled") == {"coffee"}
    assert retry(str(tmp_path / "out")).failed == {"mean_colour": 1, "doubled": 1}
    assert verify(str(tmp_path / "out")).faults == []
    (tmp_path / "now").touch()
    tally = retry(str(tmp_path / "out"))
    assert (tally.rows, tally.failed) == ({"mean_colour": 1, "doubled": 1}, {"mean_colour": 0, "doubled": 0})
    assert missing(tmp_path / "out", "doubled") == set()
    assert verify(str(tmp_path / "out")).faults == []
    weave(recipe(corpus_folder, tmp_path / "fresh", modalities))
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")


def test_too_many_failures_stop_the_run(photos, tmp_path):
    for index in range(120):
        (tmp_path / f"{index}.jpg").write_bytes(photos["coffee"][: 2000 + index])
    broken = recipe(tmp_path, tmp_path / "out", {"mean_colour": odd("MeanColour")}, units={"samples": 10})
    with pytest.raises(TooManyFailuresError, match="mean_colour"):
        weave(broken)


def test_limit_stops_after_the_unit_that_reaches_it(corpus_folder, tmp_path):
    made = recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("MeanColour")}, **SMALL)
    assert weave(made, limit=3).samples == 4
    assert weave(made).samples == 2


def test_a_full_disk_is_named_without_a_traceback(corpus_folder, tmp_path):
    made = recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("MeanColour")})
    plan = make_plan(made)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mean_colour").write_text("a file where a folder should be")
    with pytest.raises(EngineError, match="mean_colour"):
        execute(plan)


def test_the_python_api_runs_a_dict_and_opens_the_dataset(corpus_folder, tmp_path):
    dataset = tokenloom.run(
        {"corpus": str(corpus_folder), "output": str(tmp_path / "out"), "modalities": LIGHT, **SMALL}
    )
    assert set(dataset.modalities) == set(LIGHT)
    assert len(dataset) == 6


# --- as processes -----------------------------------------------------------------------------------------------------


def start(folder: Path, output: Path, modalities: dict, corpus: Path) -> subprocess.Popen[str]:
    path = folder / f"{output.name}.yaml"
    made = {"corpus": str(corpus), "output": str(output), "modalities": modalities, **SMALL}
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    environment = {**os.environ, "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tokenloom.pipeline.cli", "run", str(path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_drivers_on_one_output_leave_one_good_dataset(corpus_folder, tmp_path):
    drivers = [start(tmp_path, tmp_path / "out", LIGHT, corpus_folder) for _ in range(2)]
    for driver in drivers:
        _, errors = driver.communicate(timeout=240)
        assert driver.returncode == 0, errors
    assert verify(str(tmp_path / "out")).faults == []
    weave(recipe(corpus_folder, tmp_path / "alone", LIGHT, **SMALL))
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_so_and_goes_on_later(corpus_folder, tmp_path, number, code):
    driver = start(tmp_path, tmp_path / "out", LIGHT, corpus_folder)
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "dataset.json").exists():
        assert time.monotonic() < deadline
        assert driver.poll() is None
    driver.send_signal(number)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == code
    assert "goes on from there" in errors
    assert "Traceback" not in errors
    made = recipe(corpus_folder, tmp_path / "out", LIGHT, **SMALL)
    weave(made)
    assert verify(str(tmp_path / "out")).faults == []
