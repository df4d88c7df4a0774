"""Labelling a few samples in this process, without Ray and without a dataset: to try a labeler, or to time it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ...labelers.contract.kinds import Kind
from ...labelers.contract.views import ViewSettings
from ..corpus.samples import Sample, UnitSamples
from ..corpus.units import Unit
from ..dataset.ledger import Failure
from ..plan.recipe import Recipe
from ..plan.stages import Stage
from ..plan.steps import step_graph
from ..storage.store import Store
from .config import Mode, StageConfig
from .payload import UnitPayload
from .unit_labeler import UnitLabeler


@dataclass(frozen=True)
class Labels:
    """One modality of the samples: a label for each of them, or for each view of each, None where there is none, and
    why some failed."""

    kind: Kind
    on: str
    labels: list[Any | None]
    failures: list[Failure]

    def after(self, before: Labels) -> Labels:
        """Of samples that were labelled before, and of these."""
        return Labels(self.kind, self.on, before.labels + self.labels, before.failures + self.failures)


@dataclass(frozen=True)
class Trial:
    """labels: by modality. seconds: of labelers, by the name of the step, without `loading`, the seconds that finding
    and loading all of them took."""

    labels: dict[str, Labels]
    seconds: dict[str, float]
    loading: float


def label_in_process(
    recipe: Recipe, samples: Sequence[Sample], modalities: Collection[str] | None = None, count: int = 1
) -> Trial:
    """The recipe's labels of `samples`, and of the first `count` views of each. Nothing is tokenised or written.

    modalities: these and what they need, by default all.
    """
    began = perf_counter()
    graph = step_graph(recipe)
    making = graph.made_for(graph.cards if modalities is None else modalities, ())
    steps = tuple(step for step in graph.steps if making & set(step.modalities))
    stage = Stage("here", steps, 1.0, 0.0, 0, 1, 1)
    views = ViewSettings(**{**recipe.views.model_dump(), "count": count})
    config = StageConfig(stage, graph, recipe.output, {}, recipe.seed, views, Mode.SAMPLE)
    labeler = UnitLabeler(config, Store(recipe.output))
    labeler.load()
    loading = perf_counter() - began
    unit = UnitSamples(Unit("here-000000000000", 0, None, len(samples)), list(samples))
    made = labeler.label(UnitPayload.of(unit, tuple(making)), {})
    labels = {}
    for name, card in graph.cards.items():
        if name not in making:
            continue
        kind, result = card.label_kind, made.of(name)
        decoded = [None if label is None else kind.decode(label) for label in result.labels]
        labels[name] = Labels(kind, card.on, decoded, result.failures)
    return Trial(labels, made.watch.models, loading)
