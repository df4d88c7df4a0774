"""All checks of a recipe before it is run: on this machine, and on every node of the cluster where there is one."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cluster.device import chosen_device
from ..cluster.environments import Pins
from ..cluster.machine import Machine, versions
from ..cluster.nodes import NodeError, NodeHere, alive_nodes, answers, machines, on_nodes
from ..cluster.session import start_ray
from ..cluster.size import cluster_size, this_machine
from ..plan.origins import plugin_distributions, references
from ..plan.plan import make_plan
from ..plan.recipe import Recipe
from ..plan.steps import named_weights
from ..run import check_work
from ..storage.store import Store
from . import gpus
from .credentials import look_at_credentials
from .environments import environments_here, look_at_environments, wanted_environments
from .finding import Finding, Level, Row, failed, failed_by, grouped, ok
from .places import clock, left_behind, marked, sweep
from .samples import CORPUS, look_at_corpus
from .subject import Subject, examine, looks_at_images, wants_gpus
from .versions import CHECK as VERSIONS
from .versions import compare, needed
from .weights import CHECK as WEIGHTS

PLAN = "plan"
_ROUNDS = 3
"""How often a clock is asked: the quickest answer tells most."""


@dataclass(frozen=True)
class Checkup:
    """What is wanted of the machines. plugins: distributions that the recipe's classes come from. wanting: modalities
    that want GPUs; memory: bytes of the largest of these; explicit: whether the recipe itself asks for them; idle:
    modalities for which it does, though the user has others than GPUs compute. environments: the modalities of each, by
    its pins."""

    subject: Subject
    plugins: tuple[str, ...]
    wanting: tuple[str, ...]
    memory: float
    explicit: bool
    idle: tuple[str, ...]
    environments: Mapping[Pins, Sequence[str]]


def diagnose(
    recipe: Recipe,
    on_cluster: bool,
    say: Callable[[str], None] = lambda text: None,
    replacing: Collection[str] = (),
    take_changes: bool = False,
) -> list[Row]:
    """What was found, in the order in which it matters. on_cluster: whether RAY_ADDRESS names one, on whose nodes to
    look; else this machine is all there is. say: told what is being done. replacing, take_changes: as of `make_plan`.

    Raises RecipeError for what is wrong with the recipe itself, and EngineError where there is no such cluster.
    """
    checkup = _checkup(recipe)
    rows = []
    for what, url, options in _urls(recipe):
        rows += [Row(one) for one in look_at_credentials(what, url, options)]
    say("reading the corpus' listings")
    findings, shards = look_at_corpus(recipe.corpus)
    rows += [Row(one) for one in (*findings, *sweep(checkup.subject.output))]
    checkup = replace(checkup, subject=replace(checkup.subject, shards=shards))
    rows += _on_cluster(checkup, say) if on_cluster else _here(checkup, say)
    if checkup.idle:
        rows.append(Row(gpus.unused(checkup.idle)))
    if not any(_hinders_plan(row.finding) for row in rows):
        say("making the plan, as a run does; weights that this machine lacks are fetched")
        rows.append(Row(_look_at_plan(recipe, on_cluster, replacing, take_changes)))
    return rows


def _hinders_plan(found: Finding) -> bool:
    """Whether a plan would be refused for what is told already."""
    return found.level is Level.FAILED and (found.check == CORPUS or found.check.startswith(WEIGHTS))


def _look_at_plan(recipe: Recipe, on_cluster: bool, replacing: Collection[str], take_changes: bool) -> Finding:
    """What a run refuses before it begins, in its own words."""
    try:
        plan = make_plan(recipe, replacing, take_changes)
        if plan.works:
            check_work(plan, cluster_size() if on_cluster else this_machine())
    except (ValueError, RuntimeError, OSError) as error:  # those that the command line takes for the user's
        return failed_by(PLAN, error)
    return ok(PLAN, f"there is work to do for {', '.join(plan.todo)}" if plan.works else "nothing is left to do")


def _checkup(recipe: Recipe) -> Checkup:
    weights = named_weights(recipe)
    wanting, memory = wants_gpus(recipe) if chosen_device() in (None, "cuda") else ([], 0.0)
    explicit = any(stage.num_gpus for stage in recipe.resources.stages)
    output = Store(recipe.output, recipe.storage_options)
    looks = looks_at_images(recipe)
    named = tuple(references(recipe))
    subject = Subject(recipe.corpus, output, named, looks, recipe.max_failures, weights=weights)
    asking = tuple(name for stage in recipe.resources.stages if stage.num_gpus for name in stage.modalities)
    idle = asking if chosen_device() not in (None, "cuda") else ()
    plugins = tuple(plugin_distributions(recipe, Path.cwd()))
    return Checkup(subject, plugins, tuple(wanting), memory, explicit, idle, wanted_environments(recipe))


def _urls(recipe: Recipe) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Places that credentials are for, one of each sort."""
    for url in recipe.corpus.urls[:1]:
        yield "corpus", url, recipe.corpus.storage_options
    yield "output", recipe.output, recipe.storage_options


def _here(checkup: Checkup, say: Callable[[str], None]) -> list[Row]:
    say("looking at this machine")
    findings = examine(checkup.subject, f"{os.environ.get('RAY_TMPDIR', '/tmp')}/ray", 0.0)
    return [Row(one) for one in [*findings, *_gpus_here(checkup), *environments_here(checkup.environments)]]


def _gpus_here(checkup: Checkup) -> list[Finding]:
    if not checkup.wanting:
        return []
    try:
        seen = Machine().gpus(gpus.SECONDS)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return [gpus.unusable(str(error))]
    if '"names": []' in seen:
        return [gpus.none_at_all(checkup.wanting, checkup.explicit)]
    return [gpus.usable(seen, 1, checkup.memory)]


def _on_cluster(checkup: Checkup, say: Callable[[str], None]) -> list[Row]:
    start_ray()
    nodes = alive_nodes()
    say(f"looking at {len(nodes)} nodes" if len(nodes) > 1 else "looking at the cluster's node")
    found: dict[NodeHere, list[Finding]] = {node: [] for node in nodes}
    with machines(nodes) as actors:
        for look in (_versions, _clocks, _gpus):
            for node, findings in look(checkup, actors).items():
                found[node] += findings
    well = [node for node in nodes if all(one.level < 2 for one in found[node] if one.check == VERSIONS)]
    with marked(checkup.subject.output) as mark:
        subject = replace(checkup.subject, mark=mark)
        for node, findings in on_nodes(examine, lambda node: (subject, node.session, node.store), well).items():
            if isinstance(findings, NodeError):
                findings = [failed("node", findings.said, "See Ray's logs there")]
            found[node] += findings
    if checkup.environments:
        say("making environments there")
        for node, findings in look_at_environments(checkup.environments, well).items():
            found[node] += findings
    left = left_behind(checkup.subject.output, mark)
    rows = [Row(one) for one in left] + grouped({node.name: findings for node, findings in found.items()})
    if checkup.wanting and not any(node.gpus for node in nodes):
        to_come = cluster_size().scales
        rows.append(Row((gpus.to_come if to_come else gpus.none_at_all)(checkup.wanting, checkup.explicit)))
    return rows


def _versions(checkup: Checkup, actors: Mapping[NodeHere, Any]) -> dict[NodeHere, list[Finding]]:
    names = needed(checkup.plugins)
    here = versions(names)
    asked = {node: actor.versions.remote(names) for node, actor in actors.items()}
    return {
        node: [
            failed(VERSIONS, f"can't be asked: {there.said}", "See Ray's logs there")
            if isinstance(there, NodeError)
            else compare(here, there, checkup.plugins)
        ]
        for node, there in answers(asked).items()
    }


def _clocks(checkup: Checkup, actors: Mapping[NodeHere, Any]) -> dict[NodeHere, list[Finding]]:
    found: dict[NodeHere, list[Finding]] = {}
    for node, actor in actors.items():
        quickest: tuple[float, float] | None = None
        for _ in range(_ROUNDS):
            began = time.time()
            theirs = answers({node: actor.now.remote()}, seconds=10.0)[node]
            ended = time.time()
            if isinstance(theirs, NodeError):
                break
            if quickest is None or ended - began < quickest[0]:
                quickest = ended - began, theirs - (began + ended) / 2
        if quickest:
            found[node] = [clock(quickest[1], "nodes", "that of the machine where this was started")]
    return found


def _gpus(checkup: Checkup, actors: Mapping[NodeHere, Any]) -> dict[NodeHere, list[Finding]]:
    claiming = {node: actor for node, actor in actors.items() if node.gpus and checkup.wanting}
    asked = {node: actor.gpus.remote(gpus.SECONDS) for node, actor in claiming.items()}
    return {
        node: [
            gpus.unusable(seen.said) if isinstance(seen, NodeError) else gpus.usable(seen, node.gpus, checkup.memory)
        ]
        for node, seen in answers(asked).items()
    }
