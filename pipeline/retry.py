"""Trying quarantined samples again, them alone, from what the dataset says of itself."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .cluster.session import start_ray
from .corpus.corpus import Shard
from .corpus.growth import Growth
from .corpus.left_out import LEFT_OUT
from .corpus.taken import Taken
from .corpus.units import Unit
from .dataset.cards import ModalityCard
from .dataset.finished import Stock, take_stock
from .dataset.layout import CORPUS
from .dataset.ledger import Failure
from .dataset.listings import taken_shards
from .dataset.manifest import DatasetError, Manifest, check_modalities, require_manifest, stale
from .dataset.retries import begin_retry, unfinished_retries
from .dataset.standing import StandingLedgers, failures_of
from .engine.config import Mode
from .engine.tally import Tally
from .plan.mistakes import Places
from .plan.plan import Plan, make_request
from .plan.recipe import Recipe, parse_recipe
from .plan.steps import StepGraph, step_graph
from .plan.worklist import Kept, Work, kept_of
from .run import RunListener, label_units
from .storage.store import Store


def retry(
    url: str,
    modalities: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
    listener: RunListener | None = None,
) -> Tally:
    """Labels the quarantined samples again and puts what they come to into new revisions of their units; what fails
    again stays listed. What an earlier retry had begun when it died is tried again with them.

    modalities: only these, and what is made from them; by default all. Samples that the corpus reader refused aren't
    tried, since the corpus is as it is; the tally has their number. Raises DatasetError for a modality that there
    isn't, and where the corpus, or what is to be tried, has changed since.
    """
    store, listener = Store(url, storage_options), listener or RunListener()
    manifest = require_manifest(store)
    check_modalities(url, modalities, manifest.modalities)
    recipe = recipe_of(manifest, url, storage_options or {})
    now = step_graph(recipe)
    graph = _as_made(now, manifest)
    shards = taken_shards(store, manifest.corpus)
    stocks = take_stock(store, graph.cards, manifest.corpus.retired)
    finished = {name: stocks[name].finished(card) for name, card in graph.cards.items()}
    labelled = [name for name, card in graph.cards.items() if card.keeps_labels]
    kept: dict[str, Kept] = {name: (finished[name].units, finished[name].revisions) for name in labelled}
    revisions = {name: found.revisions for name, found in finished.items()}
    views = manifest.views["count"]
    standing = StandingLedgers(store).list(graph.cards, finished, views)
    chosen = graph.downstream(modalities or list(graph.cards))
    failures = [line for one in standing if one.modality in chosen for line in failures_of(store, one, views)]
    unfinished = unfinished_retries(store)
    current = set(graph.cards) - set(stale(manifest))
    failures += [one for begun in unfinished.values() for one in begun if one.modality in current]
    failed = _by_unit(failures, {unit for found in finished.values() for unit in found.units})
    works = [_work(unit, keys, graph, shards, kept, revisions) for unit, keys in sorted(failed.items())]
    _refuse_stale(url, manifest, graph, {name for work in works for name in work.todo})
    for unit, keys in failed.items():
        _refuse_half_done(url, unit, keys, stocks, graph)
    for name in {name for work in works for name in graph.made_for(work.todo, work.kept)}:
        _same_labeler(name, manifest.modalities[name], now.cards[name])
    tally = Tally(url, graph.cards)
    if works:
        unfinished[begin_retry(store, failures)] = failures
        start_ray()
        request, growth = make_request(recipe, graph, manifest.corpus), Growth(Taken(), None, list(shards.values()))
        plan = Plan(recipe, request, graph, manifest, growth, finished, kept, works)
        for result in label_units(plan, works, Mode.REPAIR):
            tally.add(result)
            listener.labelled(tally)
    for path in unfinished:
        store.delete(path)
    refused = [line for one in standing if one.modality == CORPUS for line in failures_of(store, one, views)]
    tally.rejected = sum(one.error != LEFT_OUT for one in refused)
    tally.broken = [one.reason for one in refused if not one.key and one.error != LEFT_OUT]
    _still_there(url, manifest, require_manifest(store), tally)
    return tally


def recipe_of(manifest: Manifest, url: str, storage_options: Mapping[str, Any]) -> Recipe:
    """A recipe that makes the labels of the dataset's modalities as they were made: whatever licence was accepted for
    them is. Credentials come from the environment."""
    weights = [card.weights for card in manifest.modalities.values() if card.weights]
    return parse_recipe(
        {
            "corpus": {"url": manifest.corpus.url, **manifest.corpus.reading},
            "output": url,
            "seed": manifest.seed,
            "views": manifest.views,
            "units": manifest.units,
            "modalities": {name: _settings(card) for name, card in manifest.modalities.items()},
            "accept_license": sorted({card.licence for card in weights}),
            "storage_options": dict(storage_options),
        },
        Places(f"{url}/manifests"),
    )


def _settings(card: ModalityCard) -> dict[str, Any]:
    """Of the labels alone: the tokenizer is that which the dataset holds."""
    settings: dict[str, Any] = {"labeler": card.labeler, "params": card.params, "keep": "labels"}
    return {**settings, "weights": card.weights.source} if card.weights else settings


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


def _refuse_stale(url: str, manifest: Manifest, graph: StepGraph, tried: Collection[str]) -> None:
    """Raises DatasetError where a sample's second try would be made from something else than its neighbours' first."""
    reasons = stale(manifest)
    others = [name for name in graph.cards if name in tried and reasons.keys().isdisjoint(graph.downstream([name]))]
    alone = f", or try the others alone: {' '.join(f'--modality {name}' for name in others)}" if others else ""
    for name in graph.cards:
        if name in tried and name in reasons:
            raise DatasetError(
                f"{url}: {name} is stale: {reasons[name][0]}. A label that is made now would not fit its others: run a "
                f"recipe that has it with --replace {name}{alone}"
            )


def _refuse_half_done(
    url: str, unit: Unit, modalities: Iterable[str], stocks: Mapping[str, Stock], graph: StepGraph
) -> None:
    """Raises DatasetError where an earlier try has left labels without their tokens."""
    for name in modalities:
        card = graph.cards[name]
        if unit not in stocks[name].up_to_date(card, stocks[name].finished(card)):
            raise DatasetError(
                f"{url}: an earlier try of {name} was stopped half way in the unit {unit.name}: run the recipe again, "
                f"which finishes it, and then try what is left"
            )


def _still_there(url: str, before: Manifest, now: Manifest, tally: Tally) -> None:
    """Raises DatasetError where what was tried again isn't what readers get any more."""
    for name in tally.rows:
        if now.modalities[name].generation != before.modalities[name].generation:
            raise DatasetError(f"{url}: {name} was replaced by another run meanwhile, and what was mended with it")


def _as_made(graph: StepGraph, manifest: Manifest) -> StepGraph:
    """The graph with the dataset's own cards; what was made without a modality that came later goes on without it."""
    cards = {name: manifest.modalities[name] for name in graph.cards}
    steps = (
        replace(step, wants=tuple(name for name in step.wants if name in cards[step.name].requires))
        for step in graph.steps
    )
    return StepGraph(tuple(steps), cards)


def _by_unit(failures: Iterable[Failure], units: Iterable[Unit]) -> dict[Unit, dict[str, set[str]]]:
    """By unit and modality, the keys of the samples that failed; those of units that are no more are left out."""
    named = {unit.name: unit for unit in units}
    failed: dict[Unit, dict[str, set[str]]] = {}
    for one in failures:
        if one.unit in named:
            failed.setdefault(named[one.unit], {}).setdefault(one.modality, set()).add(one.key)
    return failed


def _work(
    unit: Unit,
    failed: Mapping[str, set[str]],
    graph: StepGraph,
    shards: Mapping[str, Shard],
    kept: Mapping[str, Kept],
    revisions: Mapping[str, Mapping[Unit, int]],
) -> Work:
    """The modalities of one unit that have failures, or that are made from such: a label that was made without another
    is made again with it."""
    if unit.shard not in shards:
        raise DatasetError(f"no listing of the corpus has the shard {unit.shard}: its samples can't be tried again")
    keys = {name: set(found) for name, found in failed.items()}
    for step in graph.steps:
        for name in step.modalities:
            above = set().union(*(keys.get(need, set()) for need in step.needs))
            if above:
                keys[name] = keys.get(name, set()) | above
    todo = [name for name in graph.cards if name in keys]
    names, _ = kept_of(unit, {name: found for name, found in kept.items() if name not in keys})
    revised = ((name, unit.start, revisions[name].get(unit, 0)) for name in graph.cards)
    return Work(
        shards[unit.shard],
        unit.start,
        unit.stop,
        tuple(todo),
        kept=names,
        revisions=tuple(one for one in revised if one[2]),
        keys={name: tuple(sorted(keys[name])) for name in todo},
    )
