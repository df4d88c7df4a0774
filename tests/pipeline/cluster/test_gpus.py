"""Clusters that claim GPUs, which Ray takes on trust: what only happens where there are some, computed on CPUs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_cluster import gpu_cluster
from in_process import weave
from weaving import digests, labels_of, odd, recipe

HELPERS = Path(__file__).parents[2] / "helpers"
SPECIALISTS = {"dinov2": {"keep": "labels"}, "mean_colour": odd("OnGpu"), "metadata": {"keep": "labels"}}
TINY = {"weights": "tiny", "fit": {"units": 2}, "units": {"samples": 3}, "views": {"size": 56, "count": 2}}
ONE = {"resources": {"workers": 1}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster that claims GPUs."""
    with gpu_cluster() as address:
        yield address


def run(command_line, made, code: int = 0, **environment: str) -> str:
    """`tokenloom run` on a recipe, which must end with that code: what it printed of errors."""
    path = command_line.folder / f"{Path(made.output).name}.json"  # which is YAML, too
    path.write_text(made.model_dump_json(exclude_unset=True))
    environment = {"TOKENLOOM_DEVICE": "cpu", "PYTHONPATH": str(HELPERS), **environment}
    return command_line.end(command_line.start("run", path, **environment), code)[1]


def test_specialists_on_gpus_leave_the_same_bytes(cluster, command_line, corpus_folder, tmp_path):
    """A pool for each heavy labeler, with a share of a GPU, beside one fused stage on CPUs. What is too much at once
    for a GPU is halved."""
    notes = tmp_path / "notes"
    notes.mkdir()
    modalities = {**SPECIALISTS, "hungry": odd("Hungry", params={"folder": str(notes)})}
    run(command_line, recipe(corpus_folder, tmp_path / "with", modalities, **TINY), RAY_ADDRESS=cluster)
    # 32 at once are tried first, and a unit has six; halved until two fit, and no more than two from then on.
    units = 0
    for written in notes.iterdir():
        lines = written.read_text().splitlines()
        assert lines[:4] == ["cpu 6", "cpu 6", "cpu 6", "cpu 4"]
        assert set(lines[4:]) == {"cpu 2"}
        units += len(lines[4:]) // 3
    assert units == 2
    weave(recipe(corpus_folder, tmp_path / "without", modalities, **TINY, **ONE))
    assert digests(tmp_path / "with") == digests(tmp_path / "without")


def test_workers_that_fit_in_one_way_alone_all_find_room(cluster, command_line, corpus_folder, tmp_path):
    """A half on either node, where Ray would put them, would have the third wait for ever."""
    wishes = [{"modalities": [name], "num_gpus": share} for name, share in (("mean_colour", 0.5), ("rgb", 0.5))]
    wishes.append({"modalities": ["canny_edge"], "num_gpus": 1})
    labels = {"mean_colour": odd("MeanColour"), "rgb": {"keep": "labels"}, "canny_edge": {"keep": "labels"}}
    made = recipe(corpus_folder, tmp_path / "out", labels, resources={"stages": wishes})
    run(command_line, made, RAY_ADDRESS=cluster)
    assert len(labels_of(tmp_path / "out", "canny_edge")) == 6


def test_a_deadly_sample_is_found_on_the_gpu_of_its_stage(cluster, command_line, corpus_folder, tmp_path):
    modalities = {"mean_colour": odd("AbortsOnGpu"), "canny_edge": {"keep": "labels"}}
    run(command_line, recipe(corpus_folder, tmp_path / "out", modalities), RAY_ADDRESS=cluster)
    (ledger,) = (tmp_path / "out/quarantine/mean_colour").glob("*/*")
    (line,) = ledger.read_text().splitlines()
    assert '"key": "coffee"' in line
    assert "killed its process: SIGABRT" in line


def test_a_gpu_that_torch_cannot_use_is_an_error(cluster, command_line, corpus_folder, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    made = recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("AbortsOnGpu")}, **ONE)
    errors = run(command_line, made, code=1, RAY_ADDRESS=cluster, TOKENLOOM_DEVICE="")
    assert "Ray gave this worker a GPU" in errors
    assert "TOKENLOOM_DEVICE=cpu" in errors
    assert "Traceback" not in errors


def test_a_path_that_a_node_does_not_see_is_refused(cluster, command_line, corpus_folder):
    """What /proc/self/cwd leads to is another folder for each process, as /data is one for each machine."""
    made = recipe(corpus_folder, "/proc/self/cwd/out", {"mean_colour": odd("MeanColour")})
    errors = run(command_line, made, 1, RAY_ADDRESS=cluster)
    assert errors.startswith("tokenloom: /proc/self/cwd/out/manifests: not seen by ")
    assert "one of the cluster's 2 nodes; give a URL of object storage, or a folder that all nodes mount" in errors


def test_a_labeler_that_dies_while_it_is_loaded_is_named(cluster, command_line, corpus_folder, tmp_path):
    graves = tmp_path / "graves"
    graves.mkdir()
    deadly = odd("DiesLoading", params={"folder": str(graves)})
    errors = run(
        command_line, recipe(corpus_folder, tmp_path / "out", {"mean_colour": deadly}, **ONE), 1, RAY_ADDRESS=cluster
    )
    assert "the labeler of mean_colour kills its process while it is loaded: SIGABRT" in errors
    assert "Traceback" not in errors
    assert len(list(graves.iterdir())) == 5  # three attempts at the unit, then two by the probe
    assert not (tmp_path / "out/quarantine").exists()
