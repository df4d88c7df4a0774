"""The registry: labelers and tokenizers by name, from this package's entry points, a plugin's, or as `module:Class`."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from inspect import cleandoc
from pathlib import Path
from typing import Any, TypeVar

from ..contract.labeler import Labeler
from ..networks.extras import what_to_install

LABELER_GROUP = "tokenloom.labelers"
TOKENIZER_GROUP = "tokenloom.tokenizers"

PLUGINS = "TOKENLOOM_PLUGINS"
"""Names the folder in which the modules of `module:Class` may lie, for processes that work elsewhere than in it."""

T = TypeVar("T")


class RegistryError(ValueError):
    """A name or `module:Class` that doesn't lead to a usable class; the message says what to write instead."""


@cache
def entries(group: str) -> metadata.EntryPoints:
    """What installed packages registered in an entry point group. Read once: that reads a file of each package."""
    return metadata.entry_points(group=group)


def names(group: str) -> list[str]:
    """The names in an entry point group, sorted."""
    return sorted(entries(group).names)


def find(group: str, reference: str, base: type[T]) -> type[T]:
    """The class called `reference` in `group`, a subclass of `base`. Imports its module and no other plugin's.

    reference: a registered name, or `module:Class`, where the module may lie in the working directory.
    Raises RegistryError for an unknown name, a failed import, or a class of another type.
    """
    module_name, _, class_name = target_of(group, reference, base).partition(":")
    found = getattr(_import(module_name, reference), class_name, None)
    if found is None:
        raise RegistryError(f"{reference}: the module {module_name} has no class {class_name!r}")
    if not (isinstance(found, type) and issubclass(found, base)):
        wanted = base.__name__
        raise RegistryError(f"{reference}: {class_name} isn't a {wanted}; derive it from tokenloom.{wanted}")
    return found


def target_of(group: str, reference: str, base: type) -> str:
    """The `module:Class` that a reference stands for. Imports nothing. RegistryError for an unknown name."""
    return reference if ":" in reference else _registered(group, reference, base)


def find_labeler(reference: str) -> type[Labeler]:
    """`find` among the labelers; a modality's name finds the labeler that makes it."""
    return find(LABELER_GROUP, reference, Labeler)


def identity_of(group: str, reference: str, base: type) -> str:
    """The one name by which datasets know the class: the first that is registered for it, else `reference` itself."""
    target = target_of(group, reference, base)
    return min((e.name for e in entries(group) if e.value == target), default=reference)


@dataclass(frozen=True)
class LabelerRow:
    """A labeler as `tokenloom labelers` lists it.

    modalities: what it makes, as (name, kind); empty where `problem` says why the labeler can't be used here.
    weights: default weights (hub id or None); weights_licence is None for a labeler without weights. memory: of one
    copy at batch size 1, in bytes. autocast: what its model may run in on a GPU. params: their defaults by name.
    """

    reference: str
    summary: str
    modalities: tuple[tuple[str, str], ...] = ()
    on: str = ""
    requires: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    licence: str = ""
    weights: str | None = None
    weights_licence: str | None = None
    memory: int = 0
    autocast: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


def describe_labelers() -> list[LabelerRow]:
    """One row per registered labeler class, in the order of their names. Loads no weights."""
    references: dict[str, str] = {}
    for entry in sorted(entries(LABELER_GROUP), key=lambda entry: entry.name):
        references.setdefault(entry.value, entry.name)
    return [_describe(name) for name in references.values()]


def _describe(name: str) -> LabelerRow:
    try:
        labeler_class = find_labeler(name)
        modalities = labeler_class.makes or labeler_class().makes
    except Exception as error:  # one broken plugin must not hide the others
        return LabelerRow(name, "", problem=str(error))
    weights = labeler_class.weights
    return LabelerRow(
        reference=name,
        summary=cleandoc(labeler_class.__doc__ or "").partition("\n")[0],
        modalities=tuple((modality.name, modality.kind.name) for modality in modalities),
        on=labeler_class.on,
        requires=labeler_class.requires,
        wants=labeler_class.wants,
        licence=labeler_class.licence,
        weights=weights.default if weights else None,
        weights_licence=weights.licence if weights else None,
        memory=labeler_class.resources.memory,
        autocast=labeler_class.autocast,
        params={
            key: None if info.is_required() else info.get_default(call_default_factory=True)
            for key, info in labeler_class.Params.model_fields.items()
        },
    )


def _registered(group: str, name: str, base: type) -> str:
    """The `module:Class` that is registered as `name`."""
    targets = {entry.value for entry in entries(group).select(name=name)}
    if len(targets) > 1:
        choices = " or ".join(sorted(targets))
        raise RegistryError(f"{name}: several installed packages register this name; write {choices}")
    if targets:
        return targets.pop()
    known = names(group)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}."
    raise RegistryError(
        f"no {base.__name__.lower()} is called {name!r}: {hint} A class of your own is written module:Class, "
        f"for example my_{base.__name__.lower()}s:My{base.__name__}, with its module in the working directory"
    )


def _import(module_name: str, reference: str):
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", module_name):
        raise RegistryError(f"{reference}: {module_name!r} isn't a module's dotted name; write module:Class")
    here = os.environ.get(PLUGINS) or str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last, so that no file there shadows an installed package
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise RegistryError(
                f"{reference}: there is no module {error.name!r}, neither installed nor in {here}"
            ) from error
        raise RegistryError(f"{reference}: {what_to_install(error)}") from error
    except Exception as error:  # a plugin may raise anything
        raise RegistryError(f"{reference}: importing {module_name} failed: {_raised(error)}") from error


def _raised(error: Exception) -> str:
    """An import's error, and the file and line that raised it, which a SyntaxError says itself."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
