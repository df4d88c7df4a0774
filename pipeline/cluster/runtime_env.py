"""Ray's runtime environments: what is asked of Ray for workers with pins, and why it couldn't be had.

Ray makes one by pip on each node where such a worker starts, and keeps it there: in a virtual environment on top of its
own Python, or, where that is in a virtual environment itself, in a copy of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

SECONDS = 1800
"""Within which a node has to have made one: networks' packages are some gigabytes."""

_OPTIONS = ("--no-deps", "--disable-pip-version-check", "--no-cache-dir", "--retries", "1")
"""pip's. Without dependencies, so that what is named is what is installed. Ray itself tries it three times."""

_PIP_SAYS = "lines of stdout:\n"
"""Behind which Ray has the last of what pip said."""

_BROKEN = re.compile(r"after connection broken by '(.*)': /")

_WAY_OUT = (
    "pip there looks where the machine's settings have it (PIP_INDEX_URL, PIP_FIND_LINKS, pip.conf): make these "
    "distributions to be found there, or name other versions"
)
_WITHOUT_VIRTUALENV = "Please install virtualenv"
NO_VIRTUALENV = (
    "Ray lacks virtualenv, by which it makes environments: pip install 'tokenloom[cluster]' on every machine"
)


def runtime_env(pins: Sequence[str]) -> dict[str, Any]:
    """As an argument of that name, of tasks and actors. pins: NAME==VERSION."""
    pip = {"packages": list(pins), "pip_check": False, "pip_install_options": list(_OPTIONS)}
    return {"pip": pip, "config": {"setup_timeout_seconds": SECONDS}}


def why_unmade(error: str) -> str:
    """What Ray's error of a failed setup comes to: pip's own words where pip was at work, and the way out."""
    if _WITHOUT_VIRTUALENV in error:
        return NO_VIRTUALENV
    _, pip_said, output = error.rpartition(_PIP_SAYS)
    lines = [line.strip() for line in (output if pip_said else error).splitlines() if line.strip()]
    if not pip_said:
        return lines[-1] if lines else "Ray doesn't say why"
    told = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines[-3:]
    if broken := _BROKEN.search(output):
        told = [f"pip reaches no index from there ({broken[1]})", *told]
    return f"{' '.join(line.rstrip('.') + '.' for line in told)} {_WAY_OUT}"
