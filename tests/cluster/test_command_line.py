"""Runs from the command line, in processes of their own: beside another driver, stopped, and in an odd folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command_lines import CommandLine
from in_process import weave
from tokenloom import open_dataset
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.run import execute
from weaving import digests, recipe

HELPERS = Path(__file__).parents[1] / "helpers"
LIGHT = {
    "rgb": {"tokenizer": {"name": "patch_codebook", "params": {"size": 64}}},
    "caption": {"keep": "both"},
    "color_palette": {"keep": "both"},
    "metadata": {},
}
SMALL = {"views": {"size": 64}, "units": {"samples": 2}, "resources": {"workers": 1}}


def start(command_line: CommandLine, corpus: Path, output: Path, **environment: str) -> subprocess.Popen[str]:
    path = output.with_suffix(".json")
    path.write_text(json.dumps({"corpus": str(corpus), "output": str(output), "modalities": LIGHT, **SMALL}))
    return command_line.start("run", path, **environment)


def test_two_drivers_on_one_output_leave_one_good_dataset(command_line, ray_session, corpus, tmp_path):
    """One with a Ray of its own, and this one. (test_races.py has all moments at which they can meet.)"""
    other = start(command_line, corpus, tmp_path / "out")
    command_line.wait(other, (tmp_path / "out" / "manifests/00000001.json").exists)
    execute(make_plan(recipe(corpus, tmp_path / "out", LIGHT, **SMALL)))
    command_line.end(other)
    assert verify(str(tmp_path / "out")).faults == []
    weave(recipe(corpus, tmp_path / "alone", LIGHT, **SMALL))
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")


@pytest.mark.parametrize(("number", "code", "own"), [(signal.SIGTERM, 143, True), (signal.SIGINT, 130, False)])
def test_a_stopped_run_says_so_and_goes_on_later(command_line, ray_session, corpus, tmp_path, number, code, own):
    """On a Ray of its own, and connected to a cluster."""
    import ray

    environment = {} if own else {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    driver = start(command_line, corpus, tmp_path / "out", **environment)
    command_line.wait(driver, (tmp_path / "out" / "manifests/00000001.json").exists)
    driver.send_signal(number)
    _, errors = command_line.end(driver, code)
    assert "goes on from there" in errors
    assert '  File "' not in errors
    weave(recipe(corpus, tmp_path / "out", LIGHT, **SMALL))
    assert verify(str(tmp_path / "out")).faults == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the tests' command line begins in its folder there")
def test_nothing_in_the_working_directory_takes_the_place_of_a_module(command_line, corpus_folder, tmp_path):
    """And no other cluster of this machine is taken for ours; a plugin beside them is found, and what is relative means
    the working directory. (`colorsys` is what Ray's workers have not imported by themselves.)"""
    for name in ("random", "types", "colorsys"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    (tmp_path / "beside.py").write_text(
        "import colorsys\nfrom odd_labelers import MeanColour\nclass Beside(MeanColour):\n    pass\n"
    )
    shutil.copy(HELPERS / "odd_labelers.py", tmp_path)
    modalities = {"mean_colour": {"labeler": "beside:Beside", "keep": "labels"}}
    content = {"corpus": "corpus", "output": "out", "modalities": modalities, "resources": {"workers": 1}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    folder = Path(os.environ["RAY_TMPDIR"]) / "other"
    (folder / "ray").mkdir(parents=True)
    (folder / "ray/ray_current_cluster").write_text("127.0.0.1:1")
    process = command_line.start("run", "mine.yaml", PYTHONSAFEPATH="1", RAY_TMPDIR=str(folder))
    command_line.end(process)
    assert open_dataset(str(tmp_path / "out")).modalities["mean_colour"] is not None
