"""The names that a modality may have: they are folders of a dataset, beside those that it has for itself."""

from __future__ import annotations

import re

RESERVED = ("attempts", "corpus", "fit", "manifests", "quarantine", "retries", "tokenizers", "vocabularies")
"""What a dataset's own folders are called."""


def name_problem(name: str) -> str:
    """Why a modality can't have that name; "" where it can."""
    if name not in RESERVED and re.fullmatch(r"[A-Za-z][A-Za-z0-9_@-]*", name):
        return ""
    return (
        f"{name!r} can't be a modality's name; it takes letters, digits, _, - and @, a letter first, and can't be one "
        f"of {', '.join(RESERVED)}"
    )
