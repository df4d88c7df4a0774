"""Credentials that a recipe holds, which must not go where others may read it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..storage.errors import HARMLESS_OPTIONS, may_be_credential, redact
from .recipe import Recipe, RecipeError

_NOT_SECRET = ("anon", "google_default", "cloud", "cache", "browser")
"""What gcsfs takes for a token, beside real ones."""

_NAMED = re.compile(r"(?i)secret|password|credential|(api|access)_?key|(^|_)token$")
"""Keys, of whatever a recipe holds, whose texts are credentials."""


def refuse_secrets(recipe: Recipe, written: Mapping[str, Any]) -> None:
    """Raises RecipeError naming each key that holds a credential, or may. written: what stands in the recipe's file,
    which `recipe` may have overridden; the file goes along as a whole."""
    found = dict.fromkeys(_secrets("", recipe.model_dump())) or dict.fromkeys(_secrets("", written))
    if found:
        with recipe.named():
            raise RecipeError("\n".join(f"{key}: {_WAY_OUT}" for key in found))


def refuse_secret_url(option: str, url: str) -> None:
    """The same of an option's URL."""
    if _is_secret(url):
        raise RecipeError(f"{option}: {_WAY_OUT}")


_WAY_OUT = (
    "holds a credential, or may, which would lie readable in the cluster's store of packages and on its disks; leave "
    "it out, and let the cluster's machines have their own: a role, AWS_PROFILE, or variables in their environment"
)


def _secrets(key: str, value: Any) -> Iterator[str]:
    """Keys of options that may be credentials, of texts that are called so, and of URLs of which `redact` hides
    anything: a password, or parameters of a query that aren't known to be harmless."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            path = f"{key}.{name}".lstrip(".")
            yield from (_in_options if name == "storage_options" else _secrets)(path, inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets(key, inner)
    elif isinstance(value, str) and (_is_secret(value) or _NAMED.search(key.rpartition(".")[2])):
        yield key


def _in_options(key: str, options: Any) -> Iterator[str]:
    """What isn't known to be harmless is taken for a credential: each file system has names of its own for these."""
    for name, value in options.items() if isinstance(options, Mapping) else ():
        if isinstance(value, Mapping) and not may_be_credential(name):
            yield from _in_options(f"{key}.{name}", value)
        elif not _is_harmless(name, value):
            yield f"{key}.{name}"


def _is_harmless(name: str, value: Any) -> bool:
    if isinstance(value, bool) or value is None or value in _NOT_SECRET:
        return True
    if isinstance(value, int | float):
        return not may_be_credential(name)
    return name in HARMLESS_OPTIONS and not (isinstance(value, str) and _is_secret(value))


def _is_secret(url: str) -> bool:
    return "://" in url and (redact(url) != url or bool(urlsplit(url).password))
