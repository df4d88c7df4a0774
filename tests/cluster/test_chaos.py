"""A schedule of faults on each kind of cluster, of those that tests/chaos/run.py plays by the hundred."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (44, 47)
"""On four raylets a node is killed, and on three hosts one stands still for a while."""


@pytest.mark.slow
def test_what_faults_befall_a_run_it_ends_in_the_same_bytes():
    only = [word for seed in SEEDS for word in ("--only", str(seed))]
    ended = subprocess.run(
        [sys.executable, ROOT / "tests/chaos/run.py", *only], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert result["identical"]
    assert (result["schedules"], result["lost"], result["duplicated"]) == (len(SEEDS), 0, 0)
    assert result["faults"] > 0
    if "no hosts" in ended.stdout:
        pytest.skip(next(line for line in ended.stdout.splitlines() if line.startswith("no hosts")))
