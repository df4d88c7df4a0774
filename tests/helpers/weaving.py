"""Running recipes in tests, in this process and without Ray, and what a run left."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenloom.pipeline.checks.quarantine import list_failures
from tokenloom.pipeline.corpus.corpus import Corpus, UnitLimits
from tokenloom.pipeline.dataset.cards import ModalityCard
from tokenloom.pipeline.dataset.finished import list_finished
from tokenloom.pipeline.dataset.layout import CORPUS, MANIFESTS, manifest_path
from tokenloom.pipeline.dataset.ledger import Failure
from tokenloom.pipeline.dataset.listings import store_listing
from tokenloom.pipeline.dataset.manifest import Manifest, manifest_numbers, publish, require_manifest
from tokenloom.pipeline.dataset.reader import ColumnReader
from tokenloom.pipeline.engine.config import StageConfig, stage_configs
from tokenloom.pipeline.engine.payload import UnitPayload
from tokenloom.pipeline.engine.stage import StageWorker
from tokenloom.pipeline.plan.plan import Plan, make_plan
from tokenloom.pipeline.plan.recipe import Recipe, parse_recipe
from tokenloom.pipeline.plan.stages import Stage
from tokenloom.pipeline.storage.store import Store


def recipe(corpus: Path | str, output: Path | str, modalities: dict[str, Any], **more: Any) -> Recipe:
    return parse_recipe({"corpus": str(corpus), "output": str(output), "modalities": modalities, **more})


def odd(name: str, **more: Any) -> dict[str, Any]:
    """Settings of a modality that a labeler of odd_labelers makes."""
    return {"labeler": f"odd_labelers:{name}", "keep": "labels", **more}


def weave_here(recipe: Recipe, split: bool = False) -> list[UnitPayload]:
    """Runs what the output lacks through stage workers in this process; labels only, so that nothing is fitted.

    split: every step a stage of its own, instead of one stage of all.
    """
    plan = make_plan(recipe)
    store = Store(recipe.output)
    if plan.growth.added:
        store_listing(store, plan.growth.added)
    publish(store, lambda now: plan.manifest)
    workers = [StageWorker(config) for config in _configs(plan, split)]
    corpus, done = Corpus(recipe.corpus), []
    for work in plan.works:
        limits = UnitLimits(recipe.units.samples, recipe.units.bytes)
        for unit in corpus.read(work.shard, work.start, work.stop, limits):
            table = UnitPayload.of(unit, work.todo, kept=work.kept).to_table()
            for worker in workers:
                table = next(worker(table))
            done.extend(UnitPayload.from_table(table))
    return done


def _configs(plan: Plan, split: bool) -> list[StageConfig]:
    steps = plan.graph.steps
    groups: Sequence[tuple] = [(step,) for step in steps] if split else [steps]
    stages = [Stage("+".join(step.name for step in group), group, 1.0, 0.0, 0, 1, 1) for group in groups]
    return stage_configs(plan, stages)


def digests(url: Path | str) -> dict[str, str]:
    """SHA-256 of every object of a dataset, by path."""
    store = Store(str(url))
    return {entry.name: hashlib.sha256(store.read(entry.name)).hexdigest() for entry in store.list()}


def shards_of(url: Path | str) -> dict[str, str]:
    """`digests` of all objects but the manifests and the corpus' listings, of which there is one for each change."""
    told = (f"{MANIFESTS}/", f"{CORPUS}/")
    return {name: digest for name, digest in digests(url).items() if not name.startswith(told)}


def card_of(output: Path | str, modality: str) -> ModalityCard:
    return require_manifest(Store(str(output))).modalities[modality]


def write_manifest(store: Store, manifest: Manifest) -> None:
    """In the place of the last one, as nobody else may."""
    store.replace(manifest_path((manifest_numbers(store) or [1])[-1]), manifest.to_bytes())


def labels_of(output, modality: str) -> dict[tuple[str, int], bytes | None]:
    """The stored labels by key and view (0 for those of whole images), of the latest revisions."""
    store = Store(str(output))
    manifest = require_manifest(store)
    finished = list_finished(store, {modality: manifest.modalities[modality]}, manifest.corpus.retired)[modality]
    views = manifest.views["count"]
    reader = ColumnReader(store, manifest.modalities, views, {modality: finished.revisions})
    found = {}
    for unit in sorted(finished.units):
        column = reader.labels(unit, modality)
        for place, value in enumerate(column.values):
            found[column.keys[place // column.per_sample], place % column.per_sample] = value
    return found


def failures_of(output, modality: str) -> list[Failure]:
    return list(list_failures(Store(str(output)), [modality]))


def missing(output, modality: str) -> set[str]:
    return {key for (key, _), label in labels_of(output, modality).items() if label is None}
