"""What tests of the pipeline share: stores of each sort, and the command line."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from command_lines import tokenloom as tokenloom
from disk import no_power_cuts as no_power_cuts
from tokenloom.pipeline.storage.store import Store

PLACES = ["local", "memory", pytest.param("s3", marks=pytest.mark.s3)]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each sort."""
    if request.param == "local":
        return Store(tmp_path / "place")
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4()}")
    return Store(request.getfixturevalue("s3_url"))


@pytest.fixture(scope="module", params=PLACES)
def kept_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same for a whole file of tests, to be filled once, by a fixture, and changed by nobody else."""
    name = f"kept-{uuid.uuid4()}"
    if request.param == "local":
        return Store(tmp_path_factory.mktemp("place"))
    if request.param == "memory":
        return Store(f"memory://{name}")
    import s3fs

    request.getfixturevalue("s3_server")
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
    return Store(f"s3://{name}/place")


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("switch") / "now"


@pytest.fixture
def now(switch: Path) -> Path:
    """What a labeler waits for; of one name, for recipes that are alike."""
    switch.unlink(missing_ok=True)
    return switch
