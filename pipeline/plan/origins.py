"""The classes that a recipe names, and whence they come: a recipe runs no code but theirs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from ...labelers.contract.labeler import Labeler
from ...labelers.plugins.origin import Origin, origin_of
from ...labelers.plugins.registry import LABELER_GROUP, TOKENIZER_GROUP, RegistryError, target_of
from ...tokenizers.contract.tokenizer import Tokenizer
from .recipe import Recipe, at_key

OWN = "tokenloom"


@dataclass(frozen=True)
class Reference:
    """What a recipe says at a key, of a class in a group of entry points that derives from `base`."""

    key: str
    group: str
    reference: str
    base: type


def references(recipe: Recipe) -> Iterator[Reference]:
    for name, settings in recipe.modalities.items():
        yield Reference(f"modalities.{name}.labeler", LABELER_GROUP, settings.labeler or name, Labeler)
        if settings.tokenizer and settings.tokenizer.name:
            key = f"modalities.{name}.tokenizer.name"
            yield Reference(key, TOKENIZER_GROUP, settings.tokenizer.name, Tokenizer)


def origins(recipe: Recipe, here: Path) -> Iterator[Origin]:
    """Of every class that the recipe names, found without running any of them. RecipeError naming the key where one is
    neither installed nor in the folder `here`."""
    for one in references(recipe):
        with recipe.named(), at_key(one.key):
            yield origin_of(one.group, one.reference, one.base, here)


def plugin_distributions(recipe: Recipe, here: Path) -> list[str]:
    """The installed distributions, beside this one, from which the recipe's classes come, where that can be told."""
    found = set()
    for one, _ in _of_others(recipe):
        with suppress(RegistryError):
            found.add(origin_of(one.group, one.reference, one.base, here).distribution)
    return sorted(found - {"", OWN})


def told_origins(recipe: Recipe, here: Path) -> list[str]:
    """A line for each class that isn't this package's: whose code the recipe runs. Runs none of it, and leaves what
    can't be found to those who then miss it."""
    told = [_told(one, top, here) for one, top in _of_others(recipe)]
    return list(dict.fromkeys(filter(None, told)))


def _of_others(recipe: Recipe) -> Iterator[tuple[Reference, str]]:
    """The references that lead out of this package, and the top-level modules to which they lead."""
    for one in references(recipe):
        with suppress(RegistryError):
            top = target_of(one.group, one.reference, one.base).partition(":")[0].partition(".")[0]
            if top != OWN:
                yield one, top


def _told(one: Reference, top: str, here: Path) -> str:
    try:
        origin = origin_of(one.group, one.reference, one.base, here)
    except RegistryError:
        found = PathFinder.find_spec(top, [*sys.path, str(here)])
        return f"{one.reference}: code of {found.origin}" if found and found.origin else ""
    whose = str(here) if origin.files else f"{origin.distribution} {origin.version}"
    return f"{one.reference}: code of {whose}"
