"""What has a Ray beside the session's: one head with its dashboard for all tests of this folder, and command lines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from command_lines import command_line as command_line
from command_lines import tokenloom as tokenloom
from disk import no_power_cuts as no_power_cuts
from held_plugin import place as place
from ray_head import Head, ray_head


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    with ray_head() as head:
        yield head
