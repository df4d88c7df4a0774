"""The Python face of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .dataset.dataset import Dataset, open_dataset
from .plan.plan import make_plan
from .plan.recipe import Recipe, load_recipe, parse_recipe
from .run import execute


def run(recipe: str | Path | Mapping[str, Any] | Recipe, *, limit: int | None = None) -> Dataset:
    """Makes what the recipe describes and the output lacks, and opens the dataset.

    recipe: a file, the name of a shipped recipe, its content as a dict, or a Recipe. limit: stop after the unit that
    holds the limit-th sample. Ray is started where it isn't running, and left running.

    Raises RecipeError for a mistake in the recipe, DatasetError where the output was made otherwise,
    TooManyFailuresError past `max_failures`, EngineError and StorageError where the run can't go on.
    """
    if isinstance(recipe, Mapping):
        recipe = parse_recipe(recipe)
    elif not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    execute(make_plan(recipe), limit=limit)
    return open_dataset(recipe.output, recipe.storage_options)
