"""What an actor of a stage has to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ...labelers.contract.views import ViewSettings
from ..plan.plan import Plan
from ..plan.stages import Stage
from ..plan.steps import StepGraph


class Mode(Enum):
    """What becomes of the labels that a stage makes."""

    COMMIT = "tokens and labels become shards of the dataset"
    SAMPLE = "labels are put aside, as the views see them, for tokenizers to be fitted to"
    REPAIR = "tokens and labels take the places of failures in shards that there are"


@dataclass(frozen=True)
class StageConfig:
    """What an actor of a stage has to know.

    carries: modalities whose labels later stages need, so far as they are there. pixels_later: whether later stages
    look at images. sample: the digest of the sample that labels are put aside of.
    """

    stage: Stage
    graph: StepGraph
    output: str
    storage_options: Mapping[str, Any]
    seed: int
    views: ViewSettings
    mode: Mode = Mode.COMMIT
    carries: frozenset[str] = frozenset()
    pixels_later: bool = False
    last: bool = True
    sample: str = ""


def stage_configs(plan: Plan, groups: Sequence[Stage], mode: Mode = Mode.COMMIT, sample: str = "") -> list[StageConfig]:
    """What the actors of each stage have to know, in the stages' order. sample: as of StageConfig."""
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
                mode=mode,
                carries=frozenset(need for step in later for need in step.needs if need in made)
                | frozenset(name for step in later for name in step.modalities),
                pixels_later=any(step.on != "nothing" for step in later),
                last=index == len(groups) - 1,
                sample=sample,
            )
        )
    return configs
