"""Recipes that rooms above this one plan: told by their top key, and found by an entry point of that name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TypeAlias

from ..plan.yaml_text import YamlTextError, read_yaml

Planner: TypeAlias = "Callable[[str, Sequence[str]], None]"
"""Takes the recipe's file and its overrides, and prints the plan."""


def planner(recipe: str) -> Planner | None:
    """Who plans the recipe in a file; None for recipes of this room, and for what can't be read: they say why."""
    try:
        data, _ = read_yaml(Path(recipe).read_bytes()) if Path(recipe).is_file() else (None, {})
    except YamlTextError:
        return None
    keys = data if isinstance(data, dict) else {}
    return next((point.load() for point in entry_points(group="tokenloom.plans") if point.name in keys), None)
