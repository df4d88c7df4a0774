"""An untrained model of a dataset of many kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import pictured, untrained
from tokenloom.training.fit.open_model import open_model
from tokenloom.training.forms.forms import Forms


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `dataset`, and `run/model`, an untrained model of it."""
    folder = tmp_path_factory.mktemp("forms")
    pictured(folder)
    untrained(folder / "dataset", folder / "run")
    return folder


@pytest.fixture(scope="session")
def forms(folder: Path) -> Forms:
    return open_model(str(folder / "run"))[1]
