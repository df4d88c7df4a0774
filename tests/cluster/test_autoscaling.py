"""Runs that ask for GPUs on a cluster that has none, and whose autoscaler may bring two nodes with one each."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from autoscaling_cluster import MOST, AutoscalingCluster, autoscaling_cluster
from ray_head import CLUSTER
from weaving import recipe


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[AutoscalingCluster]:
    with autoscaling_cluster(tmp_path_factory.mktemp("gate") / "gate") as cluster:
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

    def end(self, code: int = 0) -> str:
        assert self._process.wait(timeout=240) == code, self.said
        return self.said


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
