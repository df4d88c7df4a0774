"""Recipes of rooms above this one: told by their top key, and found by entry points of that name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel

from ...labelers.plugins.registry import entries
from ..plan.recipe_file import RecipeError
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
    return next((point.load() for point in entries("tokenloom.plans") if point.name in keys), None)


def refuse(recipe: str) -> None:
    """Raises RecipeError for a recipe of another room."""
    if planner(recipe):
        raise RecipeError(
            f"{recipe}: a training recipe, of which no dataset is made; `tokenloom plan {recipe}` tells what its "
            f"datasets give, and `tokenloom batches {recipe}` shows what a model will see"
        )


def schemas() -> dict[str, type[BaseModel]]:
    """The models of the other rooms' recipes, by their top keys."""
    return {point.name: point.load() for point in entries("tokenloom.schemas")}
