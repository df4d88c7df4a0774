"""What tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
from disk import no_power_cuts as no_power_cuts
from small_models import pictured, untrained
from tokenloom.training.fit.open_model import open_model
from tokenloom.training.forms.forms import Forms


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `dataset`, of many kinds, and `run/model`, an untrained model of it."""
    folder = tmp_path_factory.mktemp("forms")
    pictured(folder)
    untrained(folder / "dataset", folder / "run")
    return folder


@pytest.fixture(scope="session")
def forms(pictures: Path) -> Forms:
    return open_model(str(pictures / "run"))[1]
