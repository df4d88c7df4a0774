"""Stages: the steps grouped into actor pools, for a cluster of so many CPUs and GPUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .recipe import Recipe, RecipeError, StageSettings
from .steps import Step, StepGraph


@dataclass(frozen=True)
class Stage:
    """Steps that run in one actor, one after another, over the same decoded images."""

    name: str
    steps: tuple[Step, ...]
    num_cpus: float
    num_gpus: float
    min_workers: int
    max_workers: int

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(name for step in self.steps for name in step.modalities)


def stages(graph: StepGraph, recipe: Recipe, cpus: int, gpus: float) -> list[Stage]:
    """Groups the steps into actor pools, for a cluster of so many CPUs and GPUs.

    As the recipe's `resources.stages` says; without it one fused stage, and on GPUs a pool of its own per heavy step.
    A stage comes after those that make what it needs, so light steps that need a heavy one's labels form a second
    light stage.
    """
    wishes = recipe.resources.stages
    unknown = sorted({name for wish in wishes for name in wish.modalities} - set(graph.cards))
    if unknown:
        raise RecipeError(f"resources.stages: {', '.join(unknown)} aren't among the recipe's modalities")
    pools: dict[str, str] = {}
    levels: dict[str, int] = {}
    grouped: dict[tuple[int, str], list[Step]] = {}
    for step in graph.steps:
        pool = _pool(step, wishes, gpus)
        before = [graph.step_of(need).name for need in step.needs]
        level = max((levels[name] + (pools[name] != pool) for name in before), default=0)
        pools[step.name], levels[step.name] = pool, level
        grouped.setdefault((level, pool), []).append(step)
    workers = recipe.resources.workers or max(1, cpus)
    in_order = sorted(grouped.items(), key=lambda item: item[0][0])
    return _that_fit([_stage(tuple(steps), wishes, workers, gpus) for _, steps in in_order], cpus, gpus)


def _that_fit(groups: list[Stage], cpus: float, gpus: float) -> list[Stage]:
    """The stages, asking for less CPU and GPU each where one worker of every stage wouldn't fit into the cluster: a
    stage without workers would hold up all others for ever. GPUs asked for where there are none yet are left to the
    cluster's autoscaler."""
    for resource, there in (("num_cpus", cpus), ("num_gpus", gpus)):
        asked = sum(getattr(stage, resource) * stage.min_workers for stage in groups)
        if asked > there > 0:
            shares = [math.floor(100 * getattr(stage, resource) * there / asked) / 100 for stage in groups]
            groups = [replace(stage, **{resource: share}) for stage, share in zip(groups, shares, strict=True)]
    return groups


def _wish(step: Step, wishes: Sequence[StageSettings]) -> StageSettings | None:
    return next((wish for wish in wishes if set(wish.modalities) & set(step.modalities)), None)


def _pool(step: Step, wishes: Sequence[StageSettings], gpus: float) -> str:
    wish = _wish(step, wishes)
    if wish is not None:
        return "/".join(wish.modalities)
    return step.name if step.gpus and gpus else "light"


def _stage(steps: tuple[Step, ...], wishes: Sequence[StageSettings], workers: int, gpus: float) -> Stage:
    name = "+".join(step.name for step in steps)
    wish = _wish(steps[0], wishes)
    if wish is not None:
        return Stage(name, steps, wish.num_cpus, wish.num_gpus, wish.min_workers, wish.max_workers or workers)
    share = steps[0].gpus if gpus else 0.0
    return Stage(name, steps, 1.0, share, 1, max(1, int(gpus / share)) if share else workers)
