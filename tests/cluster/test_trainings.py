"""Trainings by several of Ray Train's workers."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_trainings import Heard, run_very_small, small_recipe, trained_here
from tokenloom.training.fit.figures import Figures
from training_recipes import two_datasets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trainings")
    two_datasets(folder)
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> Heard:
    """One process, without Ray."""
    heard = Heard()
    trained_here(small_recipe(folder, "alone", steps=20), heard)
    return heard


def losses(figures: list[Figures]) -> list[float]:
    return [one.loss for one in figures]


def test_one_worker_gives_what_this_process_gives(ray_session, folder, alone, capfd):
    heard = Heard()
    assert run_very_small(small_recipe(folder, "one", steps=20), heard).step == 20
    assert losses(heard.figures) == losses(alone.figures)
    mine, other = (load_file(folder / name / "model/model.safetensors") for name in ("one", "alone"))
    assert all(torch.equal(mine[name], other[name]) for name in other)
    assert capfd.readouterr() == ("", "")


def test_two_workers_share_the_network_out_and_survive_a_kill(ray_session, folder, alone):
    """And then one process goes on alone, from what the two have saved."""
    killed: list[int] = []
    output = folder / "two"
    heard = Heard()

    def hear(news: str | Figures) -> None:
        heard(news)
        if isinstance(news, Figures) and news.step == 10 and not killed:
            killed.append(int((output / "pids/1").read_text()))
            os.kill(killed[0], signal.SIGKILL)

    assert run_very_small(small_recipe(folder, "two", steps=20, workers=2), hear).step == 20
    assert killed
    assert [said for said in heard.said if said.startswith("going on")]
    by_step = {one.step: one for one in heard.figures}
    assert losses([by_step[step] for step in range(1, 21)]) == pytest.approx(losses(alone.figures), abs=1e-5)
    ends = [json.loads(line)["step"] for file in sorted((output / "metrics").iterdir()) for line in file.open()]
    assert ends == list(range(1, 21))
    index = json.loads((output / "checkpoints/00000020/index.json").read_text())
    assert max(len(one["parts"]) for one in index["tensors"].values()) == 2
    shared = [load_file(folder / name / "model/model.safetensors") for name in ("two", "alone")]
    assert all(torch.allclose(shared[0][name], one, atol=1e-4) for name, one in shared[1].items())
