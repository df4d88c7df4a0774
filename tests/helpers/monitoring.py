"""What infra/monitoring asks of Prometheus."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "infra/monitoring"

_GRAFANAS = {"$__rate_interval": "5m", "$session": ".*", "$stage": ".*"}


def program(name: str) -> str:
    """The path of one of Prometheus' programs; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} is installed: apt-get install prometheus")
    return found


def of_dashboard() -> Iterator[tuple[str, str]]:
    """Title and expression of every target, with what Grafana puts in the places of its variables."""
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for variable, value in _GRAFANAS.items():
                expression = expression.replace(variable, value)
            yield panel["title"], expression


def of_rules() -> Iterator[tuple[str, str]]:
    """Name and expression of every rule."""
    for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]


def metrics_of(expression: str) -> set[str]:
    """Ray's and tokenloom's metrics in it."""
    return set(re.findall(r"\b(?:ray|autoscaler)_\w+", expression))
