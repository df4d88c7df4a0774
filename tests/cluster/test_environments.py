"""Labelers that import one distribution in two versions: made by jobs on a real head, whose pip finds wheels in a
folder and nothing else."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ray_head import CLUSTER, GCS, Head, raylet
from tokenloom.pipeline.dataset.manifest import require_manifest
from tokenloom.pipeline.storage.store import Store
from weaving import labels_of
from wheels import write_wheel

PLUGIN = """
import numpy as np
from tokenloom import Labeler, Modality, Vector

class Old(Labeler):
    makes = (Modality("old", Vector(dim=2)),)

    def label(self, batch):
        import os, tiny_scale
        second = "ON_THE_SECOND_NODE" in os.environ
        return {"old": [np.array([tiny_scale.FACTOR, second], np.float32) for _ in batch.images]}

class New(Labeler):
    makes = (Modality("new", Vector(dim=1)),)
    requires = ("old",)

    def label(self, batch):
        import tiny_scale
        return {"new": [np.array([10 * tiny_scale.FACTOR + old[0]], np.float32) for old in batch.labels["old"]]}

class Known(Labeler):
    makes = (Modality("known", Vector(dim=1)),)

    def label(self, batch):
        from importlib.util import find_spec
        return {"known": [np.array([find_spec("tiny_scale") is not None], np.float32) for _ in batch.images]}
"""


@pytest.fixture(scope="module")
def head(head: Head) -> Head:
    wheels = head.folder / "wheels"
    write_wheel(wheels, "tiny_scale", "1.0", "FACTOR = 1\n")
    write_wheel(wheels, "tiny_scale", "2.0", "FACTOR = 2\n", ["numpy<2"])
    write_wheel(wheels, "tiny_scale", "3.0", "FACTOR = 3\n", ["tiny_offset>=1"])
    return head


@pytest.fixture
def place(small_corpus: Path, tmp_path: Path) -> Path:
    (tmp_path / "scales.py").write_text(PLUGIN)
    write(tmp_path, small_corpus, "1.0", "2.0")
    return tmp_path


def write(place: Path, corpus: Path, old: str, new: str) -> None:
    modalities: dict[str, Any] = {
        name: {"labeler": f"scales:{name.title()}", "keep": "labels"} for name in ("known", "old", "new")
    }
    modalities["old"]["environment"] = "ours"
    modalities["new"]["environment"] = {"pip": [f"Tiny.Scale=={new}"]}
    content = {"corpus": str(corpus), "output": "out", "modalities": modalities}
    (place / "mine.yaml").write_text(
        yaml.safe_dump(content | {"environments": {"ours": {"pip": [f"tiny_scale=={old}"]}}})
    )


def values(place: Path, modality: str, number: int = 0) -> set[float]:
    """The number at one place of each label."""
    kind = require_manifest(Store(str(place / "out"))).modalities[modality].label_kind
    labels = [kind.decode(label) for label in labels_of(place / "out", modality).values() if label]
    return {float(np.ravel(label)[number]) for label in labels}


def test_two_versions_work_side_by_side_and_the_dataset_says_which(head: Head, place: Path, small_corpus: Path):
    code, said = head.command("submit", "mine.yaml", "--address", head.address, cwd=place)
    assert code == 0, said
    assert "making environments (old: tiny-scale==1; new: tiny-scale==2) ..." in said
    assert "note: in the environment of new, tiny-scale needs numpy<2, and 2." in said
    assert [values(place, name) for name in ("known", "old", "new")] == [{0.0}, {1.0}, {21.0}]
    cards = require_manifest(Store(str(place / "out"))).modalities
    assert [cards[name].environment for name in cards] == [[], ["tiny-scale==1"], ["tiny-scale==2"]]

    head_here = {"cwd": place, "RAY_ADDRESS": f"127.0.0.1:{GCS}"}
    write(place, small_corpus, "2.0", "2.0")
    code, said = head.command("run", "mine.yaml", **head_here)
    assert code == 2, said
    assert 'environment: ["tiny-scale==1"] -> ["tiny-scale==2"]' in said
    code, said = head.command("run", "mine.yaml", "--replace", "old", **head_here)
    assert code == 0, said
    assert "making environments (old, new: tiny-scale==2) ..." in said
    assert [values(place, name) for name in ("old", "new")] == [{2.0}, {22.0}]


def test_what_pip_cannot_install_ends_a_run_at_once_with_its_words(head: Head, place: Path, small_corpus: Path):
    write(place, small_corpus, "9.9", "3.0")
    began = time.monotonic()
    code, said = head.command("run", "mine.yaml", cwd=place, RAY_ADDRESS=f"127.0.0.1:{GCS}")
    assert code == 2, said
    assert time.monotonic() - began < 120
    assert "tokenloom: the environment of old: tiny-scale==9.9, on " in said
    assert "Could not find a version that satisfies the requirement tiny-scale==9.9" in said
    assert "PIP_FIND_LINKS" in said
    assert '  File "' not in said
    assert not (place / "out").exists()

    code, table = head.command("doctor", "mine.yaml", cwd=place, RAY_ADDRESS=f"127.0.0.1:{GCS}", COLUMNS="400")
    assert code == 1, table
    assert "tiny-scale==9.9: Could not find a version" in table
    assert "tiny-scale needs tiny_offset>=1: not there." in table


def test_a_node_that_comes_later_and_cannot_ends_a_run_too(head: Head, place: Path, small_corpus: Path):
    """As if the nodes that there were had been able to."""
    write(place, small_corpus, "9.9", "2.0")
    blind = "import tokenloom.pipeline.run as run; run.make_environments = lambda *told: None; "
    blind += "from tokenloom.pipeline.cli import main; main()"
    ended = subprocess.run(
        [CLUSTER / "python", "-c", blind, "run", "mine.yaml"],
        cwd=place,
        env={**head.environment, "RAY_ADDRESS": f"127.0.0.1:{GCS}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 1, ended.stdout
    assert "Could not find a version that satisfies the requirement tiny-scale==9.9" in ended.stdout
    assert '  File "' not in ended.stdout


@contextmanager
def second_node(head: Head, **environment: str) -> Iterator[None]:
    """With a GPU by its word, and a folder of its own in which Ray makes environments."""
    with raylet(head, CLUSTER / "python", "--num-gpus", "1", **{"ON_THE_SECOND_NODE": "1", **environment}):
        yield


def test_each_node_makes_the_environments_of_its_workers(head: Head, place: Path):
    recipe = yaml.safe_load((place / "mine.yaml").read_text())
    recipe["resources"] = {"stages": [{"modalities": ["old"], "num_gpus": 1}]}
    (place / "mine.yaml").write_text(yaml.safe_dump(recipe))
    here = {"cwd": place, "RAY_ADDRESS": f"127.0.0.1:{GCS}", "TOKENLOOM_DEVICE": "cpu"}
    with second_node(head, PIP_FIND_LINKS="/nowhere"):
        code, said = head.command("run", "mine.yaml", **here)
        assert code == 2, said
        assert "tokenloom: the environment of old: tiny-scale==1, on " in said
        assert "No matching distribution found for tiny-scale==1" in said
        assert not (place / "out").exists()
    with second_node(head):
        code, said = head.command("run", "mine.yaml", **here)
    assert code == 0, said
    assert [values(place, name) for name in ("known", "old", "new")] == [{0.0}, {1.0}, {21.0}]
    assert values(place, "old", 1) == {1.0}
