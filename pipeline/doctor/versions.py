"""Versions on the machines of a cluster, compared with those here."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, requires, version

from ..cluster.machine import PYTHON
from .finding import Finding, failed, ok, warning

CHECK = "versions"
_OWN = ("tokenloom", "ray")


def needed(plugins: Collection[str]) -> list[str]:
    """The distributions whose versions matter: this one and what it builds on, as far as that is here, and those of
    plugins."""
    named = [match[0] for line in requires("tokenloom") or () if (match := re.match(r"[\w.-]+", line))]
    return list(dict.fromkeys([*_OWN, *plugins, *filter(_is_here, named)]))


def _is_here(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def compare(here: Mapping[str, str], there: Mapping[str, str], plugins: Collection[str]) -> Finding:
    """here, there: as of `machine.versions`. Of others' packages another version is a warning: a run works, but labels
    may differ in last bits from machine to machine."""
    differing = [name for name, found in there.items() if found != here[name]]
    vital = [name for name in differing if name in (*_OWN, *plugins) or (name == PYTHON and not _alike(here, there))]
    if vital:
        way_out = "Install there: " + ", ".join(f"{name} {here[name]}" for name in vital)
        return failed(CHECK, _told(vital, here, there), way_out)
    if differing:
        way_out = "Give all machines one image, or one constraints file: labels may differ in their last bits"
        return warning(CHECK, _told(differing, here, there), way_out)
    return ok(CHECK, ", ".join(f"{name} {here[name]}" for name in (*_OWN, PYTHON)) + f", and {len(here) - 3} more")


def _alike(here: Mapping[str, str], there: Mapping[str, str]) -> bool:
    """Whether the two speak one Python: 3.11.2 and 3.11.9 do."""
    return here[PYTHON].split(".")[:2] == there[PYTHON].split(".")[:2]


def _told(names: Collection[str], here: Mapping[str, str], there: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {there[name] or 'is lacking'}, and {here[name]} here" for name in names)
