"""Stages: the steps grouped into actor pools, for a cluster of so many CPUs and GPUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..cluster.size import ClusterSize
from .recipe import Recipe, StageSettings
from .steps import Step, StepGraph

_ROUNDING = 1e-6
_EVERY_GPU = 1_000_000
"""Workers of a stage on GPUs that the recipe doesn't bound: as many as there is room for."""


@dataclass(frozen=True)
class Stage:
    """Steps that run in one actor, one after another, over the same decoded images. memory: of an actor, in bytes."""

    name: str
    steps: tuple[Step, ...]
    num_cpus: float
    num_gpus: float
    memory: float
    min_workers: int
    max_workers: int

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(name for step in self.steps for name in step.modalities)


def stages(graph: StepGraph, recipe: Recipe, size: ClusterSize) -> list[Stage]:
    """Groups the steps into actor pools, for a cluster of that size.

    As the recipe's `resources.stages` says; without it one fused stage, and on GPUs a pool of its own per heavy step.
    A stage comes after those that make what it needs, so light steps that need a heavy one's labels form a second
    light stage.
    """
    wishes = recipe.resources.stages
    pools: dict[str, str] = {}
    levels: dict[str, int] = {}
    grouped: dict[tuple[int, str], list[Step]] = {}
    for step in graph.steps:
        pool = _pool(step, wishes, size.gpus)
        before = [graph.step_of(need).name for need in step.needs]
        level = max((levels[name] + (pools[name] != pool) for name in before), default=0)
        pools[step.name], levels[step.name] = pool, level
        grouped.setdefault((level, pool), []).append(step)
    workers = recipe.resources.workers or max(1, int(size.cpus))
    in_order = sorted(grouped.items(), key=lambda item: item[0][0])
    return _that_fit([_stage(tuple(steps), wishes, workers, size.gpus) for _, steps in in_order], size)


def _that_fit(groups: list[Stage], size: ClusterSize) -> list[Stage]:
    """The stages, asking for less each where one worker of every stage wouldn't fit into the cluster: a stage without
    workers would hold up all others for ever. GPUs that aren't there yet are left to the autoscaler."""
    for resource, there in (("num_cpus", size.cpus), ("memory", size.memory)):
        asked = sum(getattr(stage, resource) * stage.min_workers for stage in groups)
        if asked > there > 0:
            shares = [math.floor(100 * getattr(stage, resource) * there / asked) / 100 for stage in groups]
            groups = [replace(stage, **{resource: share}) for stage, share in zip(groups, shares, strict=True)]
    if not size.gpus:
        return [replace(stage, num_gpus=_dividing(stage.num_gpus)) for stage in groups]
    shares = gpu_shares([(stage.num_gpus, stage.min_workers) for stage in groups], [node.gpus for node in size.nodes])
    return [
        replace(stage, num_gpus=share, max_workers=_most_workers(stage, share, size.gpus))
        for stage, share in zip(groups, shares, strict=True)
    ]


def gpu_shares(wishes: Sequence[tuple[float, int]], gpus: Sequence[float]) -> list[float]:
    """What each stage's workers get of a GPU, so that the least workers of all stages fit: whole GPUs, or 1/n of one.

    wishes: (share, workers) of each stage. gpus: of each node. Shares that don't divide a GPU leave a rest that Ray
    counts and no worker can use: of three workers of 0.6 on two GPUs the third waits for ever (ray#39987). The largest
    share is cut down first.
    """
    shares = [_dividing(wish) for wish, _ in wishes]
    while not _fit([share for share, (_, workers) in zip(shares, wishes, strict=True) for _ in range(workers)], gpus):
        largest = max(range(len(shares)), key=lambda index: shares[index])
        shares[largest] = _next_smaller(shares[largest])
    return shares


def _dividing(share: float) -> float:
    """The least share that is no less, and a whole number of GPUs or one GPU's n-th part."""
    if share >= 1:
        return math.ceil(share)
    return 1 / math.floor(1 / share + _ROUNDING) if share > 0 else 0.0


def _next_smaller(share: float) -> float:
    return share - 1 if share > 1 else 1 / (round(1 / share) + 1)


def _fit(shares: Sequence[float], gpus: Sequence[float]) -> bool:
    """Whether workers with these shares find room, the largest first: several GPUs on one node, a part on one GPU."""
    left = [[1.0] * int(count) for count in gpus]
    for share in sorted((share for share in shares if share), reverse=True):
        needed = max(1, int(share))
        part = min(share, 1.0)
        for node in left:
            free = [place for place, rest in enumerate(node) if rest >= part - _ROUNDING]
            if len(free) >= needed:
                for place in sorted(free, key=lambda place: node[place])[:needed]:
                    node[place] -= part
                break
        else:
            return False
    return True


def _most_workers(stage: Stage, share: float, gpus: float) -> int:
    """As many as the GPUs hold, for a stage that uses some."""
    return max(stage.min_workers, min(stage.max_workers, int(gpus / share + _ROUNDING))) if share else stage.max_workers


def _wish(step: Step, wishes: Sequence[StageSettings]) -> StageSettings | None:
    return next((wish for wish in wishes if set(wish.modalities) & set(step.modalities)), None)


def _pool(step: Step, wishes: Sequence[StageSettings], gpus: float) -> str:
    wish = _wish(step, wishes)
    if wish is not None:
        return "/".join(wish.modalities)
    return step.name if step.gpus and gpus else "light"


def _stage(steps: tuple[Step, ...], wishes: Sequence[StageSettings], workers: int, gpus: float) -> Stage:
    """One pool. Its steps run one after another, so it needs the CPUs of the greediest, and the memory of all."""
    name = "+".join(step.name for step in steps)
    memory = sum(step.memory for step in steps)
    wish = _wish(steps[0], wishes)
    if wish is not None:
        most = wish.max_workers or workers
        return Stage(name, steps, wish.num_cpus, wish.num_gpus, memory, wish.min_workers, most)
    share = steps[0].gpus if gpus else 0.0
    cpus = max(step.cpus for step in steps)
    return Stage(name, steps, cpus, share, memory, 1, _EVERY_GPU if share else workers)
