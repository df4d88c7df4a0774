"""Credentials that a recipe holds, which must not go where others may read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..storage.errors import options_without_credentials, redact
from .recipe import Recipe, RecipeError

_NOT_SECRET = ("anon", "google_default", "cloud", "cache", "browser")
"""What gcsfs takes for a token, beside real ones."""


def refuse_secrets(recipe: Recipe) -> None:
    """Raises RecipeError naming each key of the recipe that holds a credential."""
    found = list(_secrets(recipe))
    if found:
        with recipe.named():
            raise RecipeError("\n".join(f"{key}: {_WAY_OUT}" for key in found))


_WAY_OUT = (
    "holds a credential, which would lie readable in the cluster's store of packages and on its disks; leave it out, "
    "and let the cluster's machines have their own: a role, AWS_PROFILE, or variables in their environment"
)


def _secrets(recipe: Recipe) -> Iterator[str]:
    """Keys of credentials, by their names; and of URLs with a password or a signature."""
    yield from _in_options("storage_options", recipe.storage_options)
    yield from _in_options("corpus.storage_options", recipe.corpus.storage_options)
    urls = {"output": recipe.output, "vocabulary": recipe.vocabulary}
    urls |= {"corpus.url": next((url for url in recipe.corpus.urls if _is_secret(url)), None)}
    for name, settings in recipe.modalities.items():
        urls[f"modalities.{name}.weights"] = settings.weights
        urls[f"modalities.{name}.tokenizer.weights"] = settings.tokenizer and settings.tokenizer.weights
    yield from (key for key, url in urls.items() if url and _is_secret(url))


def _in_options(key: str, options: Mapping[str, Any]) -> Iterator[str]:
    harmless = options_without_credentials(options)
    for name, value in options.items():
        if name not in harmless:
            if value not in _NOT_SECRET:
                yield f"{key}.{name}"
        elif isinstance(value, Mapping):
            yield from _in_options(f"{key}.{name}", value)


def _is_secret(url: str) -> bool:
    return "://" in url and (redact(url) != url or bool(urlsplit(url).password))
