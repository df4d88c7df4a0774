"""Licences of weights: which one a checkpoint is under, and whether it forbids commercial use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatch

TINY = "tiny"

NONE = "none (random numbers)"
UNKNOWN = "unknown"

_NONCOMMERCIAL = re.compile(r"(?<![a-z])(nc|non-?commercial|amlr|research)(?![a-z])", re.IGNORECASE)


def licence_of(source: str, default: str | None, licence: str, others: Mapping[str, str] | None) -> str:
    """The licence of the checkpoint `source` (hub id, path or URL), by what a labeler declares of its weights.

    default, licence: the default checkpoint and its licence. others: licences by a pattern of the hub id or of the last
    part of a path; None where all checkpoints are under `licence`.
    """
    if source == TINY:
        return NONE
    if others is None or source == default:
        return licence
    name = source.rstrip("/").rsplit("/", 1)[-1]
    patterns = {**({default: licence} if default else {}), **others}
    for pattern, found in patterns.items():
        if fnmatch(source, pattern) or fnmatch(name, pattern.rsplit("/", 1)[-1]):
            return found
    return UNKNOWN


def is_noncommercial(licence: str) -> bool:
    """Whether a licence's SPDX id, or the name that stands for it, says that commercial use is forbidden."""
    return _NONCOMMERCIAL.search(licence) is not None
