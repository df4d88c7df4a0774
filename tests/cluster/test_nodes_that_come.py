"""Runs on clusters whose nodes come and go."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from changing_cluster import ChangingCluster, changing_cluster
from in_process import weave
from placed_labelers import NOTES, SLOW, Note, notes
from weaving import digests, labels_of, recipe

UNITS = 100
DRAIN = 30
PLACED = {"placed": {"labeler": "placed_labelers:Placed", "keep": "labels"}}
SMALL = {"units": {"samples": 1}, "views": {"size": 56, "count": 1}}
_RUN = [sys.executable, "-m", "tokenloom.pipeline.cli", "run"]


@pytest.fixture(scope="module")
def many(small_corpus, tmp_path_factory) -> Path:
    """A corpus of as many photographs as there shall be units."""
    folder = tmp_path_factory.mktemp("many")
    photos = sorted(small_corpus.glob("*.jpg"))
    for index in range(UNITS):
        shutil.copy(photos[index % len(photos)], folder / f"{index:03}.jpg")
    return folder


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> Path:
    """The folder of what workers note."""
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def cluster(taken) -> Iterator[ChangingCluster]:
    with changing_cluster(**{NOTES: str(taken), "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": str(DRAIN)}) as cluster:
        yield cluster


class Run:
    """`tokenloom run` in a process, while nodes come and go."""

    def __init__(self, cluster: ChangingCluster, made, folder: Path) -> None:
        self._path, self._said = folder / "recipe.json", folder / "said"
        self._path.write_text(made.model_dump_json(exclude_unset=True))
        variables = {**os.environ, "RAY_ADDRESS": cluster.address, "COLUMNS": "1000"}
        variables["PYTHONPATH"] = str(Path(__file__).parent.parent / "helpers")
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [*_RUN, str(self._path)], env=variables, stdout=said, stderr=subprocess.STDOUT, cwd=folder
            )

    @property
    def said(self) -> str:
        return self._said.read_text()

    def until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Waits until it is so, while the run goes on."""
        began = time.monotonic()
        while not condition():
            assert self._process.poll() is None, self.said
            assert time.monotonic() - began < seconds, self.said
            time.sleep(0.05)

    def end(self, code: int = 0) -> str:
        assert self._process.wait(timeout=240) == code, self.said
        return self.said


def noted(folder: Path, since: float) -> list[Note]:
    return [note for note in notes(folder) if note.began >= since]


def test_a_node_that_joins_is_used_and_one_that_is_warned_is_left(cluster, many, taken, tmp_path):
    """It begins with one node of one CPU; a second one joins and takes part; the first is warned, as spot machines
    are, and is left long before it would be taken away. None of its units was begun twice."""
    (taken / SLOW).touch()
    began, first = time.time(), cluster.add(num_cpus=1)
    run = Run(cluster, recipe(many, tmp_path / "out", PLACED, **SMALL), tmp_path)
    run.until(lambda: len(noted(taken, began)) >= 2)
    assert {note.node for note in noted(taken, began)} == {first}
    second = cluster.add(num_cpus=1)
    run.until(lambda: any(note.node == second for note in noted(taken, began)))
    warned = time.time()
    cluster.warn(first)
    assert cluster.gone(first) < DRAIN - 10
    (taken / SLOW).unlink()
    said = run.end()
    assert "a node of 1 CPUs, 0 GPUs and " in said
    assert "is about to go: its work goes on elsewhere\n" in said
    assert said.count("about to go") == 1  # it is no part of the run that takes time
    done = noted(taken, began)
    assert sorted(note.key for note in done) == sorted(path.stem for path in many.iterdir())
    late = [note for note in done if note.node == first and note.began > warned]
    assert len(late) <= 4  # what Ray Data had sent there, within the second in which it looks again
    weave(recipe(many, tmp_path / "alone", PLACED, **SMALL))
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")


def test_the_only_worker_of_a_stage_moves_from_a_node_that_is_warned(cluster, many, taken, tmp_path):
    """It was told its node, and is the only one that the recipe allows."""
    (taken / SLOW).touch()
    began = time.time()
    cluster.add(num_cpus=1)
    made = recipe(many, tmp_path / "out", PLACED, resources={"workers": 1}, **SMALL)
    run = Run(cluster, made, tmp_path)
    run.until(lambda: bool(noted(taken, began)))
    before = noted(taken, began)[0].node
    cluster.add(num_cpus=1)
    warned = time.monotonic()
    cluster.warn(before)
    run.until(lambda: noted(taken, began)[-1].node != before)
    assert time.monotonic() - warned < DRAIN - 5
    (taken / SLOW).unlink()
    run.end()
    assert cluster.gone(before) < DRAIN
    assert len(labels_of(tmp_path / "out", "placed")) == UNITS


def test_what_no_node_has_is_refused_where_none_will_come(cluster, many, tmp_path):
    """At once, with what was asked for and what there is."""
    cluster.add(num_cpus=1)
    wish = {"stages": [{"modalities": ["placed"], "num_cpus": 1, "num_gpus": 0.5}]}
    began = time.monotonic()
    run = Run(cluster, recipe(many, tmp_path / "out", PLACED, resources=wish, **SMALL), tmp_path)
    said = run.end(code=2)
    assert time.monotonic() - began < 60
    assert "resources.stages.0: 1 worker of 1 CPUs and 0.5 GPUs each (placed)" in said, said
    assert "run on a larger cluster" in said
    assert '  File "' not in said
    assert not (tmp_path / "out").exists()
