"""Trying quarantined samples again, them alone, from what the dataset says of itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .cluster.session import start_ray
from .corpus.corpus import Corpus, Shard
from .corpus.units import Unit
from .dataset.layout import LEDGER, MANIFEST, ledger_folder
from .dataset.manifest import DatasetError, Manifest, ModalityCard, require_manifest
from .dataset.reader import ColumnReader
from .engine.config import Mode
from .engine.tally import Tally
from .plan.plan import Plan
from .plan.recipe import Recipe, parse_recipe
from .plan.steps import step_graph
from .plan.worklist import Work
from .run import RunListener, label_units
from .storage.store import Store


def retry(
    url: str,
    modalities: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
    listener: RunListener | None = None,
) -> Tally:
    """Labels the quarantined samples again and puts what they come to into the shards; what fails again stays listed.

    modalities: only these, and what is made from them; by default all. Samples that the corpus reader refused aren't
    tried: the corpus is as it is. Raises DatasetError where the corpus or a labeler has changed since.
    """
    store, listener = Store(url, storage_options), listener or RunListener()
    manifest = require_manifest(store)
    recipe = recipe_of(manifest, url, storage_options or {})
    graph = step_graph(recipe)
    for name, card in graph.cards.items():
        _same_labeler(name, manifest.modalities[name], card)
    graph = replace(graph, cards={name: manifest.modalities[name] for name in graph.cards})
    chosen = graph.downstream(modalities or list(graph.cards))
    shards = {shard.id: shard for shard in Corpus(recipe.corpus).shards()}
    works = _works(ColumnReader(store, graph.cards, manifest.views["count"]), shards, chosen)
    tally = Tally(url, graph.cards)
    if works:
        start_ray()
        plan = Plan(recipe, graph, manifest, list(shards.values()), {}, works)
        for result in label_units(plan, works, Mode.REPAIR):
            tally.add(result)
            listener.labelled(tally)
    return tally


def recipe_of(manifest: Manifest, url: str, storage_options: Mapping[str, Any]) -> Recipe:
    """A recipe that makes the dataset's modalities as they were made. Credentials come from the environment."""
    return parse_recipe(
        {
            "corpus": {"url": manifest.corpus.url, **manifest.corpus.reading},
            "output": url,
            "seed": manifest.seed,
            "views": manifest.views,
            "units": manifest.units,
            "modalities": {name: _settings(card) for name, card in manifest.modalities.items()},
            "storage_options": dict(storage_options),
        },
        f"{url}/{MANIFEST}",
    )


def _settings(card: ModalityCard) -> dict[str, Any]:
    keep = {(True, True): "both", (True, False): "tokens", (False, True): "labels"}
    settings: dict[str, Any] = {
        "labeler": card.labeler,
        "params": card.params,
        "keep": keep[card.keeps_tokens, card.keeps_labels],
    }
    if card.weights:
        settings["weights"] = card.weights.source
    if card.tokens:
        settings["tokenizer"] = {"name": card.tokens.tokenizer, "params": card.tokens.params}
    return settings


def _same_labeler(name: str, old: ModalityCard, new: ModalityCard) -> None:
    """Raises DatasetError where trying again would mix labels of different origin."""
    for what, before, now in (
        ("labeler's version", old.version, new.version),
        ("weights", old.weights and old.weights.sha256, new.weights and new.weights.sha256),
    ):
        if before != now:
            raise DatasetError(
                f"{name}: the {what} was {before} and is {now} now; run the recipe with --replace {name} instead"
            )


def _works(reader: ColumnReader, shards: Mapping[str, Shard], modalities: Sequence[str]) -> list[Work]:
    """One piece per unit with failures: the modalities that have some, and the samples."""
    todo: dict[Unit, dict[str, set[str]]] = defaultdict(dict)
    for name in modalities:
        for entry in reader.store.list(ledger_folder(name)):
            unit = Unit.parse(entry.name.removesuffix(f".{LEDGER}"))
            if unit is not None:
                todo[unit][name] = {failure.key for failure in reader.ledger(unit, name)}
    works = []
    for unit, failed in sorted(todo.items()):
        if unit.shard not in shards:
            raise DatasetError(f"the corpus has no shard {unit.shard} any more; its samples can't be tried again")
        keys = tuple(sorted(set().union(*failed.values())))
        works.append(Work(shards[unit.shard], unit.start, unit.stop, tuple(failed), keys=keys))
    return works
