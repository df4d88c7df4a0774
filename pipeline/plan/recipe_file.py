"""The files that recipes are written in: what one says, where its keys stand, and how a mistake in it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr

from .mistakes import MistakesError, Places, checked
from .yaml_text import YamlTextError, read_yaml

NOWHERE = Places("recipe")
"""Where keys stand of a recipe that was never written down."""


class RecipeError(ValueError):
    """A recipe that can't be used; the message names the file, the line, the key and the way out."""


class Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Written(Strict):
    """A whole recipe, which knows where its keys stand."""

    _places: Places = PrivateAttr(default=NOWHERE)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Puts the file and the line in front of what an error says of a key: `modalities.depth.keep: ...`."""
        try:
            yield
        except RecipeError as error:
            lines = str(error).splitlines()
            places = [self._places.of(line.partition(":")[0]) for line in lines]
            said = "\n".join(f"{place}: {line}" for place, line in zip(places, lines, strict=True))
            raise RecipeError(said) from None


W = TypeVar("W", bound=Written)


def read_recipe(path: Path, model: type[Written]) -> tuple[dict[str, Any], dict[str, str]]:
    """What the file says, and the place of every key by its dotted path. RecipeError."""
    try:
        data, lines = read_yaml(path.read_bytes())
    except YamlTextError as error:
        raise RecipeError(f"{path}:{error.line}: {error}" if error.line else f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with the keys {', '.join(model.model_fields)}")
    return data, {key: f"{path}:{line}" for key, line in lines.items()}


def checked_recipe(model: type[W], data: Mapping[str, Any], places: Places = NOWHERE) -> W:
    """The recipe in `data`. places: where its keys stand, for the messages. RecipeError."""
    try:
        recipe = checked(model, data)
    except MistakesError as error:
        raise RecipeError("\n".join(f"{places.of(one.key)}: {one}" for one in error.found)) from None
    recipe._places = places
    return recipe


def override_key(
    data: dict[str, Any], override: str, written_out: Callable[[str, Any], Any] = lambda key, value: value
) -> str:
    """Sets one `a.b=value` in place, whose value is YAML; its key. RecipeError.

    written_out: the long form of what stands at a key, where that has a short one.
    """
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise RecipeError(f"--set {override}: write key.key=value, as in --set views.size=448")
    try:
        value, _ = read_yaml(text.encode())
    except YamlTextError as error:
        raise RecipeError(f"--set {override}: {text!r} is {error}; quote it") from None
    *parents, last = name.split(".")
    node: Any = data
    for depth, key in enumerate(parents):
        child = written_out(key, node.get(key))
        if child is not None and not isinstance(child, dict):
            above, kind = ".".join(parents[: depth + 1]), "list" if isinstance(child, list) else "value"
            raise RecipeError(f"--set {override}: {above} is a {kind}, without keys; set all of it: --set {above}=...")
        node[key] = node = child or {}
    node[last] = value
    return name
