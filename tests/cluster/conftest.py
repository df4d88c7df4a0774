"""One Ray head for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ray_head import Head, ray_head


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    with ray_head() as head:
        yield head
