"""What a recipe needs of every machine, and what one that is asked finds there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...labelers.contract.labeler import Labeler
from ...labelers.plugins.registry import RegistryError, find, find_labeler
from ..corpus.corpus import CorpusSettings, Shard
from ..plan.origins import Reference
from ..plan.recipe import Recipe
from ..plan.weights import WeightsSource
from ..storage.store import Store
from .finding import Finding, failed, ok
from .places import Mark, look_at_output
from .samples import look_at_samples
from .space import SESSION, SHARED, look_at_space
from .weights import look_at_weights


@dataclass(frozen=True)
class Subject:
    """shards: of the corpus, whose first samples are to be read; decode, most: as of `look_at_samples`. weights: of
    labelers, by modality. mark: which has to be in the output."""

    corpus: CorpusSettings
    output: Store
    references: tuple[Reference, ...]
    decode: bool = True
    most: float = 0.0
    shards: tuple[Shard, ...] = ()
    mark: Mark | None = None
    weights: Mapping[str, WeightsSource] = field(default_factory=dict)


def examine(subject: Subject, session: str, store: float) -> list[Finding]:
    """What this machine finds. session, store: as of `NodeHere`."""
    findings = [_look_at_classes(subject.references)]
    findings += [look_at_weights(name, weights) for name, weights in subject.weights.items()]
    if subject.shards:
        findings.append(look_at_samples(subject.corpus, subject.shards, subject.decode, subject.most))
    findings += look_at_output(subject.output, subject.mark)
    return findings + look_at_space(_folders(subject, session), store)


def _look_at_classes(references: tuple[Reference, ...]) -> Finding:
    for one in references:
        try:
            find(one.group, one.reference, one.base)
        except RegistryError as error:
            return failed("classes", f"{one.key}: {' '.join(str(error).split())}")
    return ok("classes", "all that the recipe names can be imported")


def _folders(subject: Subject, session: str) -> dict[str, str]:
    folders = {SESSION: session, SHARED: "/dev/shm"}
    if subject.weights:
        folders["weights' cache"] = str(Path(os.environ.get("TOKENLOOM_CACHE", "~/.cache/tokenloom")).expanduser())
    if subject.output.is_local:
        folders["output"] = subject.output.address
    return folders


def looks_at_images(recipe: Recipe) -> bool:
    """Whether any labeler of the recipe does, so that one that can't be decoded is a failure."""
    return any(find_labeler(settings.labeler or name).on != "nothing" for name, settings in recipe.modalities.items())


def wants_gpus(recipe: Recipe) -> tuple[list[str], float]:
    """The modalities that the recipe puts on GPUs, or whose labelers wish for one; and the bytes of the largest."""
    written = {name: stage.num_gpus for stage in recipe.resources.stages for name in stage.modalities}
    wanting, most = [], 0.0
    for name, settings in recipe.modalities.items():
        found: type[Labeler] = find("tokenloom.labelers", settings.labeler or name, Labeler)
        if written.get(name, found.resources.gpus):
            wanting.append(name)
            most = max(most, found.resources.memory)
    return wanting, most
