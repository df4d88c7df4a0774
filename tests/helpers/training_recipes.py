"""Training recipes in tests: small datasets, and what the command line says of a recipe."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_dataset import SmallDataset, write_dataset
from tokenloom.pipeline.cli import main
from tokenloom.training.data.opening import OpenData, open_data
from tokenloom.training.data.recipe import TrainingRecipe, load_training_recipe

NAMES = ["caption", "color_palette", "dinov2"]


def two_datasets(folder: Path) -> tuple[SmallDataset, SmallDataset]:
    """Of 16 and of 24 samples, with two views each, in units of four."""
    return write_dataset(folder / "one"), write_dataset(folder / "two", shards=3)


def content(folder: Path, **data: Any) -> dict[str, Any]:
    """A recipe that mixes these two."""
    datasets = {"a": {"url": str(folder / "one"), "weight": 3}, "b": {"url": str(folder / "two")}}
    small = {"masking": "all2all", "input_tokens": 20, "target_tokens": 20, "batch_size": 16, "window": 2}
    return {"data": {"datasets": datasets, **small, **deepcopy(data)}}


def written(path: Path, content: dict[str, Any], *overrides: str) -> TrainingRecipe:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_training_recipe(path, overrides)


def opened(folder: Path, **data: Any) -> OpenData:
    return open_data(written(folder / "train.yaml", content(folder, **data)))


def run_command(*words: str) -> int:
    """The exit code of `tokenloom WORDS` in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tokenloom", *words])
        patch.setenv("COLUMNS", "160")
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def refusal(path: Path, capsys: Any, command: str = "plan") -> str:
    """The one line with which the command refuses the recipe in the file."""
    assert run_command(command, str(path)) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said
