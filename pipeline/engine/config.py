"""What an actor of a stage has to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...labelers.contract.views import ViewSettings
from ..plan.plan import Plan
from ..plan.stages import Stage
from ..plan.steps import StepGraph


def stage_configs(
    plan: Plan, groups: Sequence[Stage], collect: Iterable[str] = (), amends: bool = False
) -> list[StageConfig]:
    """What the actors of each stage have to know, in the stages' order."""
    recipe = plan.recipe
    configs = []
    for index, stage in enumerate(groups):
        later = [step for other in groups[index + 1 :] for step in other.steps]
        made = {name for other in groups[: index + 1] for name in other.modalities}
        configs.append(
            StageConfig(
                stage=stage,
                graph=plan.graph,
                output=recipe.output,
                storage_options=recipe.storage_options,
                seed=recipe.seed,
                views=ViewSettings(**recipe.views.model_dump()),
                carries=frozenset(need for step in later for need in step.needs if need in made),
                pixels_later=any(step.on != "nothing" for step in later),
                last=index == len(groups) - 1,
                collect=frozenset(collect),
                amends=amends,
            )
        )
    return configs


@dataclass(frozen=True)
class StageConfig:
    """What an actor of a stage has to know.

    carries: modalities whose labels later stages need. pixels_later: whether later stages look at images. collect:
    set in the pass before fitting, where the labels of these modalities are put aside and nothing else is written.
    amends: set when quarantined samples are tried again, and their outcomes go into the shards that there are.
    """

    stage: Stage
    graph: StepGraph
    output: str
    storage_options: Mapping[str, Any]
    seed: int
    views: ViewSettings
    carries: frozenset[str] = frozenset()
    pixels_later: bool = False
    collect: frozenset[str] = frozenset()
    last: bool = True
    amends: bool = False
