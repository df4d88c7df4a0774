"""Runs that ask for GPUs on a cluster that has none until its autoscaler brings one, and can bring two."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from autoscaling_cluster import MOST, AutoscalingCluster, autoscaling_cluster
from in_process import weave
from placed_labelers import NOTES, SLOW, notes
from ray_head import CLUSTER
from weaving import digests, recipe

PLACED = "placed_labelers:Placed"


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> Path:
    """The folder of what workers note."""
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def cluster(taken) -> Iterator[AutoscalingCluster]:
    with autoscaling_cluster(taken / "gate", **{NOTES: str(taken)}) as cluster:
        yield cluster


class Command:
    """One of tokenloom's in a process, with a recipe that lies in the folder."""

    def __init__(self, cluster: AutoscalingCluster, made, folder: Path, what: str, *words: str, **more: str) -> None:
        (folder / "recipe.json").write_text(made.model_dump_json(exclude_unset=True))
        variables = {**cluster.environment, "TOKENLOOM_DEVICE": "cpu", "COLUMNS": "1000", **more}
        variables["PYTHONPATH"] = str(Path(__file__).parent.parent / "helpers")
        command = [CLUSTER / "python", "-m", "tokenloom.pipeline.cli", what, str(folder / "recipe.json"), *words]
        self._said = folder / "said"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(command, env=variables, stdout=said, stderr=subprocess.STDOUT, cwd=folder)

    @property
    def said(self) -> str:
        return self._said.read_text()

    def until(self, condition: Callable[[], object]) -> None:
        wait_until(condition, lambda: self.said, lambda: self._process.poll() is None)

    def end(self, code: int = 0) -> str:
        assert self._process.wait(timeout=240) == code, self.said
        return self.said


def wait_until(condition: Callable[[], object], said: Callable[[], str] = str, goes_on: Callable = lambda: True):
    began = time.monotonic()
    while not condition():
        assert goes_on(), said()
        assert time.monotonic() - began < 120, said()
        time.sleep(0.1)


@pytest.mark.parametrize(("share", "workers"), [(2, 1), (1, MOST + 1)])
def test_what_the_autoscaler_cannot_bring_is_refused(cluster, small_corpus, tmp_path, share, workers):
    """More GPUs than a node of any type has, and more nodes than it may start: within a minute, before anything is
    written or started."""
    wish = {"stages": [{"modalities": ["canny_edge"], "num_gpus": share, "min_workers": workers}]}
    made = recipe(small_corpus, tmp_path / "out", {"canny_edge": {"keep": "labels"}}, resources=wish)
    began = time.monotonic()
    said = Command(cluster, made, tmp_path, "run", RAY_ADDRESS=cluster.address).end(code=2)
    assert time.monotonic() - began < 60
    assert "resources.stages.0: " in said
    assert "the autoscaler has no type of node for this, or may start no more" in said
    assert not (tmp_path / "out").exists()
    assert not cluster.asked.exists()


def test_halves_of_a_gpu_get_one_node_which_is_given_back(cluster, small_corpus, taken, tmp_path):
    modalities = {"rgb": {"keep": "labels"}, "canny_edge": {"keep": "labels"}}
    modalities["placed"] = {"labeler": PLACED, "keep": "labels"}
    halves = [{"modalities": [name], "num_gpus": 0.5, "max_workers": 1} for name in ("canny_edge", "placed")]
    more = {"units": {"samples": 1}, "views": {"size": 56}}
    (taken / SLOW).touch()
    made = recipe(small_corpus, tmp_path / "out", modalities, resources={"workers": 1, "stages": halves}, **more)
    run = Command(cluster, made, tmp_path, "run", RAY_ADDRESS=cluster.address)
    run.until(lambda: "waiting for nodes" in run.said)
    assert re.search(r"a worker for canny_edge asks for \S+ CPUs, 0.5 GPUs .*; nodes have 1 CPUs, 0 GPUs", run.said)
    assert not (tmp_path / "out").exists()
    cluster.gate.touch()
    run.until(cluster.gpus)
    run.end()
    assert len({note.node for note in notes(taken)}) == 1
    assert cluster.asked.exists()  # once, or once more for CPUs, of which no other type of node has any
    wait_until(lambda: not cluster.gpus())
    weave(recipe(small_corpus, tmp_path / "alone", modalities, resources={"workers": 1}, **more))
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")
