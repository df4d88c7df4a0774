"""What tests of the pipeline share."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from tokenloom.pipeline.storage.store import Store


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each sort."""
    if request.param == "local":
        return Store(tmp_path / "place")
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4()}")
    return Store(request.getfixturevalue("s3_url"))
