"""What tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
from disk import no_power_cuts as no_power_cuts
from small_models import pictured, untrained


@pytest.fixture(scope="session")
def of_many_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `dataset`, and `run/model`, an untrained model of it."""
    folder = tmp_path_factory.mktemp("kinds")
    pictured(folder)
    untrained(folder / "dataset", folder / "run")
    return folder
