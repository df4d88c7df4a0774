"""Whole runs: what they leave, what they do again, and what stops them; without Ray where it makes no difference."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tokenloom
from in_process import weave, without_ray
from tokenloom.labelers.contract.kinds import Image
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.cluster.session import EngineError
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import DatasetError, require_manifest
from tokenloom.pipeline.engine.tally import TooManyFailuresError
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import RecipeError
from tokenloom.pipeline.retry import retry
from tokenloom.pipeline.run import execute
from tokenloom.pipeline.storage.errors import StorageError
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.vq.vq import VQParams, VQTokenizer
from waiting import wait_for_cpus
from weaving import digests, missing, odd, recipe, shards_of

LIGHT = {
    "rgb": {"tokenizer": {"name": "patch_codebook", "params": {"size": 64}}},
    "caption": {"keep": "both"},
    "color_palette": {"keep": "both"},
    "metadata": {},
}
ONE, TWO = {"resources": {"workers": 1}}, {"resources": {"workers": 2}}
LABELS = ["mean_colour", "doubled"]
SMALL = {"views": {"size": 64}, "units": {"samples": 2}, **ONE}

HELPERS = Path(__file__).parents[1] / "helpers"

pytestmark = pytest.mark.usefixtures("ray_session")


def weave_on_ray(recipe):
    return execute(make_plan(recipe))


@dataclass(frozen=True)
class Woven:
    """The dataset of LIGHT, which tests don't change, and its digests."""

    output: Path
    digests: dict[str, str]


@pytest.fixture(scope="module")
def woven(corpus, tmp_path_factory) -> Woven:
    """Made once, by the Python API in this process."""
    output = tmp_path_factory.mktemp("woven") / "out"
    content = {"corpus": str(corpus), "output": str(output), "modalities": LIGHT, **SMALL}
    with without_ray():
        dataset = tokenloom.run(content)
    assert set(dataset.modalities) == set(LIGHT)
    assert len(dataset) == 6
    return Woven(output, digests(output))


def test_a_run_is_verified_reproducible_and_done_once(woven, corpus, s3_url):
    """Two outputs of one recipe are equal to the byte, on disk and on S3, whatever the workers, on Ray or not; a second
    run does nothing."""
    two = recipe(corpus, f"{s3_url}/out", LIGHT, **SMALL | TWO)
    tally = weave_on_ray(two)
    assert (tally.samples, tally.units, sum(tally.failed.values())) == (6, 3, 0)
    assert verify(f"{s3_url}/out").faults == []
    assert digests(f"{s3_url}/out") == woven.digests
    assert weave_on_ray(two).units == 0
    assert digests(f"{s3_url}/out") == woven.digests


def test_modalities_added_later_are_all_that_runs(woven, corpus, tmp_path):
    """They end in what one run of all makes: captions too, whose vocabulary was made before they were asked for."""
    weave(recipe(corpus, tmp_path / "later", {name: LIGHT[name] for name in ("rgb", "color_palette")}, **SMALL))
    for added in ("caption", "metadata"):
        written = {path: path.stat().st_mtime_ns for path in (tmp_path / "later").rglob("*.parquet")}
        modalities = {name: LIGHT[name] for name in LIGHT if name == added or (tmp_path / "later" / name).exists()}
        tally = weave(recipe(corpus, tmp_path / "later", modalities, **SMALL))
        assert list(tally.rows) == [added]
        assert {path: path.stat().st_mtime_ns for path in written} == written
    assert shards_of(tmp_path / "later") == shards_of(woven.output)
    found, wanted = (require_manifest(Store(output)) for output in (tmp_path / "later", woven.output))
    assert found == wanted
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
    made = recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("MeanColour")}, **ONE)
    weave(made)
    shutil.rmtree(tmp_path / "out" / "manifests")
    with pytest.raises(DatasetError, match=r"no manifests/"):
        make_plan(made)


def test_lost_shards_are_made_again_and_nothing_else(woven, corpus, tmp_path):
    output = Path(shutil.copytree(woven.output, tmp_path / "out"))
    sorted((output / "caption").glob("*/*.tar"))[1].unlink()
    tally = weave(recipe(corpus, output, LIGHT, **SMALL))
    assert (tally.units, tally.rows) == (1, {"caption": 2})
    assert digests(output) == woven.digests


def test_a_changed_parameter_stops_the_run_and_replace_is_the_way_on(corpus_folder, tmp_path):
    modalities = {"mean_colour": odd("MeanColour"), "doubled": odd("Doubled"), "canny_edge": {"keep": "labels"}}
    weave(recipe(corpus_folder, tmp_path / "out", modalities, **ONE))
    changed = recipe(
        corpus_folder,
        tmp_path / "out",
        {**modalities, "canny_edge": {"keep": "labels", "params": {"low": 50}}},
        **ONE,
    )
    with pytest.raises(DatasetError, match=r"canny_edge was made differently:\n  params.low: 100.* -> 50") as error:
        make_plan(changed)
    assert "--replace canny_edge" in str(error.value)
    tally = weave(changed, ["canny_edge"])
    assert list(tally.rows) == ["canny_edge"]
    assert verify(str(tmp_path / "out")).faults == []


def test_quarantined_samples_are_tried_again_alone(corpus_folder, tmp_path):
    modalities = {
        "mean_colour": odd("WaitsFor", params={"file": str(tmp_path / "now")}),
        "doubled": odd("Doubled"),
        "caption": {},
    }
    made = recipe(corpus_folder, tmp_path / "out", modalities, **ONE)
    weave(made)
    assert missing(tmp_path / "out", "doubled") == {"coffee"}
    with without_ray():
        assert retry(str(tmp_path / "out")).failed == {"mean_colour": 1, "doubled": 1}
    before = digests(tmp_path / "out")
    assert not [name for name in before if "-r1" in name]  # which would hold nothing new
    assert verify(str(tmp_path / "out")).faults == []
    (tmp_path / "now").touch()
    tally = retry(str(tmp_path / "out"))
    assert before.items() <= digests(tmp_path / "out").items()
    assert (tally.rows, tally.failed) == ({"mean_colour": 1, "doubled": 1}, {"mean_colour": 0, "doubled": 0})
    assert missing(tmp_path / "out", "doubled") == set()
    assert verify(str(tmp_path / "out")).faults == []
    weave(recipe(corpus_folder, tmp_path / "fresh", modalities, **ONE))
    again, fresh = (open_dataset(tmp_path / name).iterate(list(modalities), labels=LABELS) for name in ("out", "fresh"))
    for one, other in zip(again, fresh, strict=True):
        assert (one.key, one.view) == (other.key, other.view)
        for name, value in one.values.items():
            np.testing.assert_array_equal(value, other.values[name])


def test_marks_of_others_that_are_at_work_stay(corpus_folder, tmp_path):
    """As a driver leaves them that makes other modalities of the same units."""
    store, unit = Store(tmp_path / "out"), "shard-0123456789ab-000000000000-end-00006"
    marks = [f"attempts/{unit}/{stage}/0f" for stage in ("mean_colour", "depth")]
    for name in (*marks, "attempts/notes.txt"):
        store.create(name, b"")
    weave(recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("MeanColour")}))
    assert [store.exists(name) for name in marks] == [False, True]


def test_too_many_failures_stop_the_run(photos, tmp_path):
    (tmp_path / "corpus").mkdir()
    for index in range(120):
        (tmp_path / "corpus" / f"{index}.jpg").write_bytes(photos["coffee"][: 2000 + index])
    broken = recipe(
        tmp_path / "corpus", tmp_path / "out", {"mean_colour": odd("MeanColour")}, units={"samples": 10}, **ONE
    )
    with pytest.raises(TooManyFailuresError, match="mean_colour"):
        weave(broken)


def test_limit_stops_after_the_unit_that_reaches_it(corpus_folder, tmp_path):
    made = recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("MeanColour")}, **SMALL | TWO)
    assert weave(made, limit=3).samples == 4
    assert weave(made).samples == 2


def test_a_file_where_a_folder_should_be_is_named(small_corpus, tmp_path):
    """Through Ray in the words that are told without."""
    plan = make_plan(recipe(small_corpus, tmp_path / "out", {"mean_colour": odd("MeanColour")}, **ONE))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mean_colour").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match=r"mean_colour/.*A file is in the way") as here, without_ray():
        execute(plan)
    with pytest.raises(EngineError) as told:
        execute(plan)
    own = re.compile(r"\d+-\d+-[0-9a-f]{16}")  # in the name of a temporary: of the process
    assert own.sub("", str(told.value)) == own.sub("", str(here.value))
    wait_for_cpus()


# --- a full disk ------------------------------------------------------------------------------------------------------

FILLED = """
import subprocess, sys
from in_process import said
folder, recipe = sys.argv[1:]
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]).returncode:
    sys.exit(77)
print(said("run", recipe, code=1))
subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
said("run", recipe)
print(said("verify", folder))
"""
"""A run on a disk of 256 KiB, and another once there is room, without Ray, through which what is told of storage comes
as it is: test_a_file_where_a_folder_should_be_is_named."""


def test_a_full_disk_is_named_without_a_traceback(corpus, tmp_path):
    """On a disk that is full: a file system of its own, seen by the run's process alone."""
    (tmp_path / "out").mkdir()
    made = {"corpus": str(corpus), "output": str(tmp_path / "out"), "modalities": {"rgb": {"keep": "labels"}}}
    (tmp_path / "recipe.json").write_text(json.dumps({**made, **ONE, "units": {"samples": 2}}))
    words = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", FILLED]
    ended = subprocess.run(
        [*words, tmp_path / "out", tmp_path / "recipe.json"],
        env={**os.environ, "PYTHONPATH": str(HELPERS)},
        capture_output=True,
        text=True,
    )
    if ended.returncode == 77 or ended.stderr.startswith("unshare:"):
        pytest.skip(f"no file system can be mounted here: {ended.stderr.strip()}")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"out/rgb/\S+\.tar: could not write it .*No space left.*make room and run it again", ended.stdout)
    assert '  File "' not in ended.stdout + ended.stderr
    assert "nothing missing, nothing foreign" in ended.stdout
