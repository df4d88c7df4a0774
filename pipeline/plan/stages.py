"""Stages: the steps grouped into actor pools, for a cluster of so many CPUs and GPUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

from ..cluster.packing import Demand, NoRoom, Packing, pack
from ..cluster.size import ClusterSize
from .recipe import Recipe, RecipeError, StageSettings
from .steps import Step, StepGraph

_ROUNDING = 1e-6
_LEAST = {"num_cpus": 0.01, "num_gpus": 0.01, "memory": 2.0**20}
"""What isn't cut down any more. Not to nothing: Ray Data would join a stage to the readers, who ask for none."""

_WISHED = {"num_cpus", "num_gpus", "min_workers"}
UNBOUNDED = 1_000_000
"""Workers of a stage that nothing bounds but the room there is: Ray Data starts and ends them as nodes come and go."""


@dataclass(frozen=True)
class Stage:
    """Steps that run in one actor, one after another, over the same decoded images. memory: of an actor, in bytes. key:
    the recipe's that speaks of the stage; written: which of these fields it gives, which then aren't the planner's.
    nodes: ids of those on which the least workers are, so that those of all stages find room."""

    name: str
    steps: tuple[Step, ...]
    num_cpus: float
    num_gpus: float
    memory: float
    min_workers: int
    max_workers: int
    key: str = "resources"
    written: frozenset[str] = frozenset()
    nodes: tuple[str, ...] = ()

    @property
    def demand(self) -> Demand:
        return Demand(self.num_cpus, self.num_gpus, self.memory)

    @property
    def request(self) -> dict[str, float]:
        """The same as Ray calls it."""
        asked = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": self.memory}
        return {name: amount for name, amount in asked.items() if amount}

    @property
    def environment(self) -> tuple[str, ...]:
        """What its workers have installed in place of the cluster's, as NAME==VERSION: the same of all steps."""
        return self.steps[0].environment

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(name for step in self.steps for name in step.modalities)


def stages(graph: StepGraph, recipe: Recipe, size: ClusterSize) -> list[Stage]:
    """Groups the steps into actor pools, for a cluster of that size.

    As the recipe's `resources.stages` says; without it one fused stage, and on GPUs a pool of its own per heavy step.
    Steps of different environments share none.
    A stage comes after those that make what it needs, so light steps that need a heavy one's labels form a second
    light stage. Raises RecipeError where the least workers that it asks for have no room on the cluster's nodes, and no
    autoscaler may bring others.
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
    workers = recipe.resources.workers or (UNBOUNDED if size.grows else max(1, int(size.cpus)))
    in_order = sorted(grouped.items(), key=lambda item: item[0][0])
    with recipe.named():
        return that_fit([_stage(tuple(steps), wishes, workers, size.gpus) for _, steps in in_order], size)


def that_fit(groups: Sequence[Stage], size: ClusterSize) -> list[Stage]:
    """The stages as they are where the least workers of all of them find room on the cluster's nodes together, else
    asking for less, the largest first: a stage without workers would hold up all others for ever. What the recipe's
    author wrote stays. Each is told its node: of two halves of a GPU and a whole one on two nodes Ray puts a half on
    either, and the third worker waits for ever.

    GPUs are given whole, or as one GPU's n-th part: other shares leave a rest that Ray counts and no worker can use; of
    three workers of 0.6 on two GPUs the third waits for ever (ray#39987). Where there is no room they stay as they are
    if an autoscaler may bring some; else raises RecipeError.
    """
    asked = list(groups)
    while isinstance(packing := pack(_least_workers(groups := _laddered(asked)), size), NoRoom):
        cut = next(
            (one for names in packing.lacking for name in sorted(names) if (one := _largest(groups, name))), None
        )
        if cut is None:
            if size.scales:
                return groups  # they wait for what an autoscaler may bring
            owners = [stage for stage in groups for _ in range(stage.min_workers)]
            raise RecipeError(_refusal(groups, owners[packing.worker], size))
        name, index = cut
        asked[index] = replace(asked[index], **{name: _next_smaller(name, getattr(groups[index], name))})
    ids = iter([size.nodes[node].id for node in packing.nodes])
    placed = [(stage, tuple(islice(ids, stage.min_workers))) for stage in groups]
    return [
        replace(stage, nodes=nodes if _has_choice(stage, size) else (), max_workers=_most_workers(stage, size))
        for stage, nodes in placed
    ]


def _has_choice(stage: Stage, size: ClusterSize) -> bool:
    """Whether there are several nodes, and some of what the stage asks for, which no autoscaler has to bring first."""
    return len(size.nodes) > 1 and _is_there(stage, size)


def _is_there(stage: Stage, size: ClusterSize) -> bool:
    return all(there or not asked for asked, there in ((stage.num_cpus, size.cpus), (stage.num_gpus, size.gpus)))


def workers_at_once(groups: Sequence[Stage], seconds: Sequence[float], size: ClusterSize) -> list[int]:
    """How many workers of each stage have room at the same time: the least of all, then one more, again and again, of
    the stage that takes longest. groups: as of `that_fit`; seconds: what each would take one worker."""
    packing, counts = pack(_least_workers(groups), size), [stage.min_workers for stage in groups]
    while isinstance(packing, Packing):
        slowest = max(range(len(groups)), key=lambda index: seconds[index] / counts[index])
        if counts[slowest] >= _most_known(groups[slowest], size) or not packing.add(groups[slowest].demand):
            break
        counts[slowest] += 1
    return counts


def _most_known(stage: Stage, size: ClusterSize) -> int:
    """The most workers, the least where it is an autoscaler's matter how many there will be."""
    unknown = stage.max_workers == UNBOUNDED and not _is_there(stage, size)
    return stage.min_workers if unknown else stage.max_workers


def least_workers(groups: Sequence[Stage]) -> list[dict[str, float]]:
    """What each of them asks for, as Ray calls it."""
    return [stage.request for stage in groups for _ in range(stage.min_workers)]


def have_room(groups: Sequence[Stage], size: ClusterSize) -> bool:
    """Whether the least workers of all stages find room on the nodes that there are now."""
    return isinstance(pack(_least_workers(groups), replace(size, scales=False)), Packing)


def _least_workers(groups: Sequence[Stage]) -> list[Demand]:
    return [stage.demand for stage in groups for _ in range(stage.min_workers)]


def _largest(groups: Sequence[Stage], name: str) -> tuple[str, int] | None:
    """The resource, and the stage that asks for most of it, of those that may be cut down."""
    some = [i for i, one in enumerate(groups) if name not in one.written and getattr(one, name) > _LEAST[name]]
    return (name, max(some, key=lambda index: getattr(groups[index], name))) if some else None


def _refusal(groups: Sequence[Stage], hindered: Stage, size: ClusterSize) -> str:
    """Why the cluster holds no worker of a stage, and what the recipe would have to say."""
    written = [stage for stage in groups if stage.written]
    if not hindered.written and written:
        hindered = max(written, key=lambda stage: stage.demand)
    workers = "1 worker" if hindered.min_workers == 1 else f"{hindered.min_workers} workers"
    nodes = ", ".join(dict.fromkeys(f"{node.cpus:g} CPUs and {node.gpus:g} GPUs" for node in size.nodes))
    smaller = f"write a smaller {' or '.join(sorted(hindered.written))}, or " if hindered.written else ""
    return (
        f"{hindered.key}: {workers} of {hindered.num_cpus:.3g} CPUs and {hindered.num_gpus:.3g} GPUs each "
        f"({', '.join(hindered.modalities)}) and the least workers of all other stages don't fit together on nodes of "
        f"{nodes}: {smaller}run on a larger cluster"
    )


def _laddered(groups: Sequence[Stage]) -> list[Stage]:
    """The stages with the least shares of GPUs that are no less, whole or an n-th part, and that divide each other.

    Ray puts a share on the fullest GPU that has room for it, as they come. Shares that divide each other fit in any
    order; of others the last may find a rest on every GPU, and room on none: thirds and halves on two GPUs.
    """
    parts = {math.floor(1 / stage.num_gpus + _ROUNDING) for stage in groups if 0 < stage.num_gpus < 1}
    divide = all(more % fewer == 0 for fewer, more in pairwise(sorted(parts)))

    def share(of: float) -> float:
        if not 0 < of < 1:
            return math.ceil(of - _ROUNDING)
        part = math.floor(1 / of + _ROUNDING)
        return 1 / (part if divide else 2 ** (part.bit_length() - 1))

    return [replace(stage, num_gpus=float(share(stage.num_gpus))) for stage in groups]


def _next_smaller(name: str, amount: float) -> float:
    return amount - 1 if name == "num_gpus" and amount > 1 else amount / 2


def _most_workers(stage: Stage, size: ClusterSize) -> int:
    """As many as the GPUs hold, for a stage that uses some, where no others may come."""
    if size.grows or not (size.gpus and stage.num_gpus):
        return stage.max_workers
    room = sum(int(node.gpus / stage.num_gpus + _ROUNDING) for node in size.nodes)
    return max(stage.min_workers, min(stage.max_workers, room))


def _wish(step: Step, wishes: Sequence[StageSettings]) -> StageSettings | None:
    return next((wish for wish in wishes if set(wish.modalities) & set(step.modalities)), None)


def _pool(step: Step, wishes: Sequence[StageSettings], gpus: float) -> str:
    wish = _wish(step, wishes)
    if wish is not None:
        return "/".join(wish.modalities)
    return step.name if step.gpus and gpus else " ".join(["light", *step.environment])


def _stage(steps: tuple[Step, ...], wishes: Sequence[StageSettings], workers: int, gpus: float) -> Stage:
    """One pool. Its steps run one after another, so it needs the CPUs of the greediest, and the memory of all."""
    name = "+".join(step.name for step in steps)
    memory = sum(step.memory for step in steps)
    wish = _wish(steps[0], wishes)
    if wish is not None:
        most, key = wish.max_workers or max(workers, wish.min_workers), f"resources.stages.{wishes.index(wish)}"
        written = frozenset(wish.model_fields_set & _WISHED)
        return Stage(name, steps, wish.num_cpus, wish.num_gpus, memory, wish.min_workers, most, key, written)
    share = steps[0].gpus if gpus else 0.0
    cpus = max(step.cpus for step in steps)
    return Stage(name, steps, cpus, share, memory, 1, UNBOUNDED if share else workers)
