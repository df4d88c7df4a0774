"""Whether machines can make the environments that a recipe asks for. On a cluster each node makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from ..cluster.environments import Pins, look
from ..cluster.nodes import NodeHere
from ..cluster.runtime_env import NO_VIRTUALENV
from ..plan.recipe import Recipe
from .finding import Finding, failed, ok, warning


def wanted_environments(recipe: Recipe) -> dict[Pins, list[str]]:
    """The modalities that name each environment. RecipeError."""
    found: dict[Pins, list[str]] = {}
    with recipe.named():
        for name in recipe.modalities:
            if pins := recipe.pins_of(name):
                found.setdefault(pins, []).append(name)
    return found


def look_at_environments(
    wanted: Mapping[Pins, Sequence[str]], nodes: Sequence[NodeHere]
) -> dict[NodeHere, list[Finding]]:
    """Of each node that works; what is made there a run finds made."""
    found: dict[NodeHere, list[Finding]] = {}
    working = [node for node in nodes if node.cpus]
    for (pins, names), environments in zip(wanted.items(), look(list(wanted), working), strict=True):
        check, told = _check(names), ", ".join(pins)
        for node, one in environments.items():
            if one.problem:
                finding = failed(check, f"{told}: {one.problem}")
            elif one.notes:
                finding = warning(
                    check, f"{told}: made; {'; '.join(one.notes)}", "Try the labeler: it may do all the same"
                )
            else:
                finding = ok(check, f"{told}: made")
            found.setdefault(node, []).append(finding)
    return found


def environments_here(wanted: Mapping[Pins, Sequence[str]]) -> list[Finding]:
    """Of this machine, where no Ray runs that could make them."""
    if wanted and find_spec("virtualenv") is None:
        return [failed(_check(names), NO_VIRTUALENV) for names in wanted.values()]
    return [ok(_check(names), f"{', '.join(pins)}: not tried; a run makes it first") for pins, names in wanted.items()]


def _check(modalities: Sequence[str]) -> str:
    return f"environment ({', '.join(modalities)})"
