"""Environments in recipes: distributions that a labeler's workers have in place of the cluster's, each of one version.

What is listed is all that is installed, so that the list is the lock: it is known without a cluster, and part of the
generation.
"""

from __future__ import annotations

from importlib.metadata import requires
from typing import Annotated

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, canonicalize_version
from pydantic import AfterValidator, Field, model_validator

from .recipe_file import Strict

_BOTH_SIDES = ("pyarrow", "ray", "tokenloom")
"""What driver and workers speak to each other with."""

_ADDRESS = (
    "neither options nor addresses, which may hold a credential and would lie readable in the dataset: have each "
    "machine's pip know where to look (PIP_FIND_LINKS, PIP_INDEX_URL, pip.conf), and write NAME==VERSION"
)


def _pinned(text: str) -> str:
    """The requirement as `name==version`, in the one way of writing it that packaging has for all that mean the same,
    since it is hashed: `Foo_Bar == 1.0` is foo-bar==1. ValueError for what isn't one version of one
    distribution, or can't be other than the cluster's."""
    if text.lstrip().startswith("-") or "@" in text or "://" in text:
        raise ValueError(_ADDRESS)  # without the text
    try:
        asked = Requirement(text)
    except InvalidRequirement:
        raise ValueError(f"{text!r} is no requirement; write NAME==VERSION") from None
    name, versions = canonicalize_name(asked.name), list(asked.specifier)
    if len(versions) != 1 or versions[0].operator != "==" or versions[0].version.endswith(".*"):
        raise ValueError(f"{text!r}: name one version, as {name}==1.2.3: it is part of what the dataset says of labels")
    if asked.extras or asked.marker:
        what = "an extra" if asked.extras else "a condition"
        raise ValueError(
            f"{text!r}: leave out {what}; what is listed is installed on every machine, and nothing else: list what "
            f"{name} needs beside it"
        )
    version = canonicalize_version(versions[0].version)
    _check_shared(name, version)
    return f"{name}=={version}"


def _check_shared(name: str, version: str) -> None:
    """Refuses what tokenloom, which is at work there too, can't do with."""
    if name in _BOTH_SIDES:
        raise ValueError(f"{name} has to be the cluster's own, by which its machines speak to each other; leave it out")
    for needed in map(Requirement, requires("tokenloom") or ()):
        is_own = needed.marker is None or needed.marker.evaluate({"extra": ""})
        if (
            canonicalize_name(needed.name) == name
            and is_own
            and not needed.specifier.contains(version, prereleases=True)
        ):
            raise ValueError(
                f"{name}=={version}: tokenloom itself is at work there, and needs {name}{needed.specifier}; pin one of "
                f"these, or leave it out to have the cluster's"
            )


def _sorted(pins: list[str]) -> list[str]:
    names = [pin.partition("==")[0] for pin in pins]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is there twice; leave one of them out")
    return sorted(pins)


Pin = Annotated[str, Field(max_length=200), AfterValidator(_pinned)]
Pins = Annotated[list[Pin], Field(min_length=1, max_length=200), AfterValidator(_sorted)]


class EnvironmentSettings(Strict):
    """What pip installs for workers, on top of what the cluster has: these distributions, and nothing that they ask
    for."""

    pip: Pins = Field(description="distributions as NAME==VERSION, with all that they need and the cluster lacks")


class EnvironmentChoice(Strict):
    """The environment of a labeler's workers: one of the recipe's by its name, or one of its own."""

    name: str | None = Field(default=None, description="one of the recipe's `environments`")
    pip: Pins | None = Field(default=None, description="as in `environments`, for this labeler alone")

    @model_validator(mode="after")
    def _one_of_them(self) -> EnvironmentChoice:
        if (self.name is None) == (self.pip is None):
            raise ValueError("write the name of one of `environments`, or {pip: [NAME==VERSION, ...]}")
        return self
