"""Commands that are done in a cluster while this process waits for them: through Ray Client, `ray://`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..cluster.client import have_driven
from ..cluster.package import LostError
from ..cluster.session import refuse_dashboard, through_client
from .package import LOST, package_of


def ray_client() -> str:
    """The address of Ray Client that RAY_ADDRESS names, or "". Raises EngineError for a dashboard's."""
    address = os.environ.get("RAY_ADDRESS", "")
    refuse_dashboard(address)
    return address if through_client(address) else ""


def attached(
    address: str,
    command: str,
    name: str,
    overrides: Sequence[str],
    corpus: Sequence[str],
    output: str | None,
    more: Sequence[str] = (),
) -> int:
    """Has the command done to a recipe on the cluster, and prints what it says; its exit code. more: options of the
    command."""
    package = package_of(command, name, overrides, corpus, output, more)
    try:
        return have_driven(address, package, _write)
    except LostError as error:
        print(f"tokenloom: {error}", file=sys.stderr, flush=True)
        return LOST


def _write(number: int, line: str) -> None:
    print(line, end="", file=sys.stdout if number == 1 else sys.stderr, flush=True)
