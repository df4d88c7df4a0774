"""The check for a GPU, tried on the CPU with tiny networks: it runs, and says what it found and what it left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHECK = Path(__file__).with_name("check.py")
LABELERS = ("imagebind", "caption_embedding")
SECTIONS = ("labelers", "precision", "tokenizers", "out_of_memory", "sam")

pytestmark = pytest.mark.slow


@pytest.fixture
def check(monkeypatch, capsys) -> Callable[..., tuple[int, dict[str, Any]]]:
    """The script in this process, which has all that is heavy loaded already: its exit code and its report."""
    from check import main

    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))

    def run(only: str, sections: str) -> tuple[int, dict[str, Any]]:
        words = ["--device", "cpu", "--quick", "--only", only, "--sections", sections]
        monkeypatch.setattr(sys, "argv", [str(CHECK), *words])
        code = main()
        return code, json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_two_labelers_and_all_that_needs_no_ray(check):
    code, report = check(",".join(LABELERS), ",".join(SECTIONS))
    assert code == 0, report
    assert report["failed"] == {}
    assert report["left_out"] == {"out_of_memory": "only a GPU's memory can be made scarce"}
    assert set(report) == {"device", "versions", *SECTIONS, "left_out", "failed"}
    for section in ("labelers", "precision"):
        assert set(report[section]) == set(LABELERS)
    assert report["precision"]["imagebind"]["imagebind"]["beyond_tolerance"] == 0
    for figures in report["labelers"].values():
        assert figures["images"] == 4
        assert min(figures[f"{what}_per_second"] for what in ("stage", "loop", "network")) > 0
    for figures in report["tokenizers"].values():
        assert figures["encoded_per_second_bfloat16"] > 0
        assert figures["decoded_per_second_bfloat16"] > 0
    assert report["sam"]["small"]["alike"] == 1


def test_a_labeler_that_there_is_not_is_a_failure(check):
    code, report = check("nothing", "labelers")
    assert code == 1
    assert report["labelers"] == {}
    assert report["failed"]["labelers"].startswith("--only nothing: there are dinov2, clip, ")


def test_without_a_gpu_it_says_what_can_be_done():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run([sys.executable, CHECK], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.splitlines() == [
        "there is no GPU that torch can use here; --device cpu --quick tries the script itself"
    ]
