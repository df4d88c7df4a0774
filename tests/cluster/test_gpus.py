"""Clusters that claim GPUs, which Ray takes on trust: what only happens where there are some, computed on CPUs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpu_cluster import Driver, gpu_cluster
from in_process import weave
from tokenloom.pipeline.checks.verify import verify
from weaving import digests, failures_of, labels_of, missing, odd, recipe

SPECIALISTS = {"dinov2": {"keep": "labels"}, "mean_colour": odd("OnGpu"), "metadata": {"keep": "labels"}}
TINY = {"weights": "tiny", "fit": {"units": 2}, "units": {"samples": 3}, "views": {"size": 56, "count": 2}}
ONE = {"resources": {"workers": 1}}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Driver]:
    """What runs command lines on a cluster that claims GPUs."""
    with gpu_cluster() as address:
        driver = Driver(address, tmp_path_factory.mktemp("driver"))
        yield driver
        driver.end()


def run(cluster: Driver, made, tmp_path, code: int = 0, device: str = "cpu") -> str:
    """`tokenloom run` on a recipe, which must end with that code: what it printed of errors."""
    path = tmp_path / "recipe.json"  # which is YAML, too
    path.write_text(made.model_dump_json(exclude_unset=True))
    ended, errors = cluster.run("run", path, TOKENLOOM_DEVICE=device)
    assert ended == code, errors
    return errors


@pytest.fixture
def three(small_corpus, tmp_path) -> Path:
    """A corpus of three photographs, which is one unit: for a second one Ray would start more workers."""
    for path in sorted(small_corpus.glob("c*")):
        (tmp_path / "three").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "three")
    return tmp_path / "three"


def test_specialists_on_gpus_leave_the_same_bytes(cluster, three, tmp_path):
    """A pool for each heavy labeler, with a share of a GPU, beside one fused stage on CPUs. What is too much at once
    for a GPU is halved."""
    notes = tmp_path / "notes"
    notes.mkdir()
    modalities = {**SPECIALISTS, "hungry": odd("Hungry", params={"folder": str(notes)})}
    run(cluster, recipe(three, tmp_path / "with", modalities, **TINY), tmp_path)
    # 32 at once are tried first, and a unit has six; halved until two fit, and no more than two from then on.
    (written,) = notes.iterdir()
    assert written.read_text().splitlines() == ["cpu 6", "cpu 6", "cpu 6", "cpu 4", "cpu 2", "cpu 2", "cpu 2"]
    weave(recipe(three, tmp_path / "without", modalities, **TINY, **ONE))
    assert digests(tmp_path / "with") == digests(tmp_path / "without")


def test_workers_find_room_and_the_deadly_sample_on_their_gpus(cluster, small_corpus, tmp_path):
    """Of three stages that fit in one way alone: a half on either node, where Ray would put them, would have the third
    wait for ever. That one's worker dies, and is started again where it was. The sample that kills it is quarantined
    alone, and its other label, of the same stage, is made."""
    wishes = [{"modalities": [name], "num_gpus": 0.5} for name in ("rgb", "canny_edge")]
    wishes.append({"modalities": ["mean_colour", "caption"], "num_gpus": 1})
    labels = {name: {"keep": "labels"} for name in ("rgb", "canny_edge", "caption")}
    output = tmp_path / "out"
    made = recipe(small_corpus, output, {**labels, "mean_colour": odd("Aborts")}, resources={"stages": wishes})
    run(cluster, made, tmp_path)
    assert len(labels_of(output, "canny_edge")) == 6
    assert missing(output, "mean_colour") == {"coffee"}
    assert not any(missing(output, name) for name in labels)
    (failure,) = failures_of(output, "mean_colour")
    assert (failure.key, failure.error) == ("coffee", "ProcessDied")
    assert "killed its process: SIGABRT" in failure.reason
    assert verify(str(output)).faults == []


def test_a_path_that_a_node_does_not_see_is_refused(cluster, small_corpus, tmp_path):
    """What /proc/self/cwd leads to is another folder for each process, as /data is one for each machine."""
    made = recipe(small_corpus, "/proc/self/cwd/out", {"mean_colour": odd("MeanColour")})
    errors = run(cluster, made, tmp_path, code=1)
    assert errors.startswith("tokenloom: /proc/self/cwd/out/manifests: not seen by ")
    assert "one of the cluster's 2 nodes; give a URL of object storage, or a folder that all nodes mount" in errors


def test_a_gpu_that_torch_cannot_use_is_an_error(cluster, small_corpus, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    made = recipe(small_corpus, tmp_path / "out", {"mean_colour": odd("AbortsOnGpu")}, **ONE)
    errors = run(cluster, made, tmp_path, code=1, device="")
    assert "Ray gave this worker a GPU" in errors
    assert "TOKENLOOM_DEVICE=cpu" in errors
    assert '  File "' not in errors
