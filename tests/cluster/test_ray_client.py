"""Ray Client, `ray://`: a run is refused there with the way out, for as long as Ray Data doesn't work through it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml
from ray_head import CLIENT, CLUSTER, Head

ADDRESS = f"ray://127.0.0.1:{CLIENT}"

_THROUGH = """
import ray, ray.data
ray.init()
print("tasks", ray.get(ray.remote(lambda: 1).remote()))
ray.data.range(2).map_batches(lambda batch: batch).take_all()
"""


def test_a_run_is_refused_at_once(head: Head, small_corpus: Path, tmp_path: Path):
    recipe = {"corpus": str(small_corpus), "output": "out", "modalities": {"canny_edge": {}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    for command in ("run", "doctor"):
        code, said = head.command(command, "mine.yaml", cwd=tmp_path, RAY_ADDRESS=ADDRESS)
        assert code == 1, said
        assert "`tokenloom submit RECIPE --address http://127.0.0.1:8265`" in said
    assert not (tmp_path / "out").exists()


def test_ray_data_does_not_work_through_it(head: Head):
    """Tasks do. Once this fails, a run may be tried through it."""
    ended = subprocess.run(
        [CLUSTER / "python", "-c", _THROUGH],
        env={**head.environment, "RAY_ADDRESS": ADDRESS},
        capture_output=True,
        text=True,
    )
    assert ended.stdout == "tasks 1\n"
    assert ended.stderr.rstrip().endswith("AttributeError: 'Worker' object has no attribute 'core_worker'")
