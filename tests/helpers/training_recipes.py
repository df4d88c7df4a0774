"""Training recipes in tests: small datasets, and what the command line says of a recipe."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from in_process import weave
from PIL import Image
from small_dataset import SmallDataset, write_dataset
from tokenloom.pipeline.cli import main
from tokenloom.training.data.opening import OpenData, open_data
from tokenloom.training.data.recipe import TrainingRecipe, load_training_recipe
from weaving import odd, recipe

NAMES = ["caption", "color_palette", "dinov2"]


def two_datasets(folder: Path | str) -> tuple[SmallDataset, SmallDataset]:
    """Of 16 and of 24 samples, with two views each, in units of four."""
    return write_dataset(f"{folder}/one"), write_dataset(f"{folder}/two", shards=3)


BROKEN = "5"
"""The key of the picture that can't be read."""


def illustrated(folder: Path, pictures: dict[str, np.ndarray]) -> Path:
    """A dataset of pictures, uint8 (32, 32, 3) by key, in a corpus beside it, with captions, tokens of their colours,
    and embeddings: `corners`, of 1 to 3 vectors of 4 numbers."""
    (folder / "corpus").mkdir(parents=True)
    for key, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / f"corpus/{key}.png")
        (folder / f"corpus/{key}.txt").write_text(f"picture number {key} of eight")
    (folder / f"corpus/{BROKEN}.png").write_bytes(b"no picture")
    codes = {"name": "product_codebook", "params": {"parts": 3, "size": 4}}
    modalities = {
        "caption": {"labeler": "caption"},
        "mean_colour": odd("MeanColour", keep="tokens", tokenizer=codes),
        "corners": odd("Corners"),
    }
    weave(recipe(folder / "corpus", folder / "out", modalities, views={"size": 32}, max_failures=0.5))
    return folder / "out"


def noise(count: int = 8) -> dict[str, np.ndarray]:
    """Pictures of it."""
    rng = np.random.default_rng(0)
    return {str(index): rng.integers(0, 256, (32, 32, 3)).astype(np.uint8) for index in range(count)}


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
