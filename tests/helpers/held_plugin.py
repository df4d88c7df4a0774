"""A recipe with a plugin of its own, which can be held up after its first unit; and what is heard of its run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO

import pytest
import yaml

PLUGIN = """
import time
from pathlib import Path
import numpy as np
from beside import SIZE
from tokenloom import Labeler, Modality, Vector

class Means(Labeler):
    makes = (Modality("means", Vector(dim=SIZE)),)
    begun = False

    def label(self, batch):
        while self.begun and Path(HELD).exists():
            time.sleep(0.1)
        self.begun = True
        return {"means": [np.asarray(image.mean((0, 1)), np.float32) for image in batch.images]}
"""


@pytest.fixture
def place(small_corpus: Path, tmp_path: Path) -> Path:
    """A folder with a recipe, a plugin, and what that imports; and something large, which isn't to be sent."""
    content = {
        "corpus": str(small_corpus),
        "output": "out",
        "units": {"samples": 1},
        "modalities": {"means": {"labeler": "plugin_means:Means", "keep": "labels"}},
        "resources": {"workers": 1},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "plugin_means.py").write_text(PLUGIN.replace("HELD", repr(str(tmp_path / "held"))))
    (tmp_path / "beside.py").write_text("SIZE = 3\n")
    with (tmp_path / "large.bin").open("wb") as large:
        large.truncate(200 * 2**20)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read_until(stream: IO[str], pattern: str) -> str:
    said = ""
    for line in stream:
        said += line
        if found := re.search(pattern, line):
            return found[1]
    pytest.fail(f"never said: {pattern}\n{said}", pytrace=False)
