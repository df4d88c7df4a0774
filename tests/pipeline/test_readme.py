"""README's plugin example, exactly as it stands there: checked, run, and its tokens read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import tokenloom

README = (Path(__file__).parent.parent / "README.md").read_text()


def example(file: str) -> str:
    """The code block of README that begins with a comment naming `file`."""
    (block,) = re.findall(rf"```\w+\n(# {re.escape(file)}\n.*?)```", README, re.DOTALL)
    return block


def command(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tokenloom.pipeline.cli", *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_plugin_example_works_as_it_stands(corpus_folder, tmp_path):
    for file in ("sharpness.py", "sharpness.yaml"):
        (tmp_path / file).write_text(example(file))
    shutil.copytree(corpus_folder, tmp_path / "photos")
    command(tmp_path, "check-labeler", "sharpness:Sharpness")
    command(tmp_path, "run", "./sharpness.yaml")
    dataset = tokenloom.open_dataset(str(tmp_path / "sharp"))
    assert dataset.modalities["sharpness"].length == 4
    assert [row.key for row in dataset.iterate(["sharpness"])] == sorted(
        path.stem for path in corpus_folder.glob("*.jpg")
    )
