"""An untrained model of a dataset of many kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenloom.training.fit.open_model import open_model
from tokenloom.training.forms.forms import Forms


@pytest.fixture(scope="session")
def folder(of_many_kinds: Path) -> Path:
    return of_many_kinds


@pytest.fixture(scope="session")
def forms(folder: Path) -> Forms:
    return open_model(str(folder / "run"))[1]
