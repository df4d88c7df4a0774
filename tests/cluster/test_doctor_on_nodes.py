"""`tokenloom doctor` on a cluster of three nodes, of which one has another tokenloom, and a GPU that isn't there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from ray_head import GCS, Head, other_environment, raylet


@pytest.fixture(scope="module")
def three(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("environments")
    with ExitStack() as nodes:
        nodes.enter_context(raylet(head, other_environment(folder / "same")))
        nodes.enter_context(raylet(head, other_environment(folder / "other", tokenloom="0.0.9"), "--num-gpus", "1"))
        yield head


@pytest.fixture
def place(small_corpus: Path, tmp_path: Path) -> Path:
    content = {"corpus": str(small_corpus), "output": "out", "modalities": {"depth": {"weights": "tiny"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def looked(head: Head, place: Path, *words: str, **environment: str) -> tuple[int, str]:
    return head.command(
        "doctor", "mine.yaml", *words, cwd=place, RAY_ADDRESS=f"127.0.0.1:{GCS}", COLUMNS="200", **environment
    )


def rows(table: str, check: str) -> list[str]:
    """Those of a check, with one space where columns have several."""
    return [" ".join(line.split()) for line in table.splitlines() if line.startswith(f"{check} ")]


def test_each_node_is_looked_at_and_those_alike_are_one_row(three: Head, place: Path):
    stages = 'resources.stages=[{"modalities": ["depth"], "num_cpus": 5000, "num_gpus": 1}]'
    code, table = looked(three, place, "--set", stages)
    assert code == 1, table
    well, ill = rows(table, "versions")
    assert "ok 2 of 3 nodes" in well
    assert "failed 1 of 3 nodes" in ill
    assert "tokenloom 0.0.9, and 0.1.0 here" in ill
    assert "-> Install there: tokenloom 0.1.0" in table
    (gpus,) = rows(table, "GPUs")
    assert "failed 1 of 3 nodes" in gpus
    assert "sees none of the 1 that Ray counts" in gpus
    (output,) = rows(table, "output")
    assert "ok 2 of 3 nodes" in output or "ok all 2" in output
    (plan,) = rows(table, "plan")
    assert "failed" in plan
    assert "1 worker of 5e+03 CPUs" in table
    assert table.rstrip().endswith("3 failures")


def test_a_job_looks_from_the_head_and_a_run_is_refused_there(three: Head, place: Path):
    code, table = three.command("doctor", "mine.yaml", "--address", three.address, cwd=place)
    assert code == 1, table
    assert "0.0.9" in table
    assert "2 failures" in table
    for words in (("run", "mine.yaml"), ("submit", "mine.yaml", "--address", three.address)):
        code, said = three.command(*words, cwd=place, RAY_ADDRESS=f"127.0.0.1:{GCS}")
        assert code == 2, said
    assert "one of the cluster's 3 nodes, has tokenloom 0.0.9, and 0.1.0 is on the machine" in said
    assert not list((place / "out").rglob("*.parquet"))
