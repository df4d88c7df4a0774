"""A fixture for conftest.py files."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_power_cuts() -> Iterator[None]:
    """This process doesn't wait for the disk: what tests write needs not outlast a power cut, and it takes a tenth of
    their time. That a name appears after its bytes are on the disk is a test of `storage`, in another process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
