"""Environments of workers on the nodes of the cluster: made before there is work for them, and looked at."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from . import machine
from .nodes import NodeError, NodeHere, alive_nodes, in_environments
from .session import EngineError

_OWN = ("tokenloom", "ray", "pyarrow")
"""What has to be as it is here: by these, driver and workers speak to each other."""

Pins = tuple[str, ...]
"""NAME==VERSION, sorted."""


class UnmadeError(ValueError):
    """An environment that can't be made, or that a labeler couldn't work in; the message names the modalities, the node
    and the way out."""


@dataclass(frozen=True)
class Environment:
    """An environment on a node. problem: why it won't do, with the way out; "" where it will. notes: versions that its
    distributions ask for and don't get, which may do all the same."""

    problem: str = ""
    notes: tuple[str, ...] = ()


def make_environments(
    wanted: Mapping[Pins, Sequence[str]], say: Callable[[str], None], note: Callable[[str], None]
) -> None:
    """Has every node that takes part in the work make these environments. wanted: the modalities of each, by its pins;
    say: told what is being done; note: what distributions ask for in vain.

    Raises UnmadeError for the first node that can't, or whose environment won't do. A node that is gone, or goes
    meanwhile, makes none. Ray is up.
    """
    nodes = [node for node in alive_nodes() if node.cpus] if wanted else []
    if not nodes:
        return
    told = {pins: f"{', '.join(modalities)}: {', '.join(pins)}" for pins, modalities in wanted.items()}
    say(f"making environments ({'; '.join(told.values())})")
    for pins, found in zip(wanted, look(list(wanted), nodes), strict=True):
        for node, environment in found.items():
            if environment.problem:
                raise UnmadeError(f"the environment of {told[pins]}, on {node.name}: {environment.problem}")
        for text in dict.fromkeys(text for one in found.values() for text in one.notes):
            note(f"note: in the environment of {', '.join(wanted[pins])}, {text}")


def look(environments: Sequence[Pins], nodes: Sequence[NodeHere]) -> list[dict[NodeHere, Environment]]:
    """Each environment as it is on each of the nodes that aren't gone. Makes those that aren't there yet."""
    here = machine.versions(_OWN)
    answers = in_environments(machine.pinned, (_OWN,), environments, nodes)
    return [
        {node: _judged(one, pins, here) for node, one in found.items() if not (isinstance(one, NodeError) and one.gone)}
        for pins, found in zip(environments, answers, strict=True)
    ]


def check_installed(pins: Sequence[str]) -> None:
    """Raises EngineError where this process isn't in the environment of these pins."""
    if pins and (others := differing(pins, machine.versions([pin.partition("==")[0] for pin in pins]))):
        raise EngineError(f"a worker isn't in the environment that it should be in: {', '.join(others)} ({sys.prefix})")


def differing(pins: Sequence[str], found: Mapping[str, str]) -> list[str]:
    """The pins of which another version is there, another build (+cpu, +cu124) too, with that. found: as of
    `machine.versions`."""
    from packaging.version import Version

    named = [pin.split("==") for pin in pins]
    return [
        f"{name}=={version} ({found[name] or 'none'} is there)"
        for name, version in named
        if not found[name] or Version(found[name]) != Version(version)
    ]


def _judged(
    found: tuple[dict[str, str], list[str], list[str]] | NodeError, pins: Pins, here: Mapping[str, str]
) -> Environment:
    if isinstance(found, NodeError):
        return Environment(found.said)
    versions, lacking, unfit = found
    if lacking:
        return Environment(
            f"{'; '.join(lacking)}: not there. What an environment lists is all that is installed, so that the dataset "
            f"says of what it was made: add these to it as NAME==VERSION"
        )
    if others := differing(pins, versions):
        return Environment(f"{', '.join(others)} after pip was at work: name the version that is there, with its build")
    if others := [
        f"{name} {versions[name] or 'not'}, and {here[name]} here" for name in _OWN if versions[name] != here[name]
    ]:
        return Environment(f"has {'; '.join(others)}: install the same on every machine")
    return Environment(notes=tuple(unfit))
