"""Trying quarantined samples again, them alone, from what the dataset says of itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .cluster.environments import make_environments
from .cluster.raylet import raylet_watched
from .cluster.session import start_ray
from .corpus.corpus import Shard
from .corpus.growth import Growth
from .corpus.left_out import LEFT_OUT
from .corpus.taken import Taken
from .corpus.units import Unit
from .dataset.cards import ModalityCard
from .dataset.finished import Finished, Stock, take_traced_stock
from .dataset.layout import CORPUS
from .dataset.ledger import Failure
from .dataset.listings import taken_shards
from .dataset.manifest import DatasetError, Manifest, check_modalities, require_manifest, stale
from .dataset.retries import begin_retry, unfinished_retries
from .dataset.standing import StandingLedgers, failures_of
from .engine.config import Mode
from .engine.tally import Tally
from .plan.again import kept_labels, samples_again, work_again
from .plan.mistakes import Places
from .plan.plan import Plan, make_request
from .plan.recipe import Recipe, parse_recipe
from .plan.steps import StepGraph, step_graph
from .plan.worklist import Work, Worklist
from .run import RunListener, label_units
from .storage.store import Store, redact


def retry(
    url: str,
    modalities: Sequence[str] = (),
    storage_options: Mapping[str, Any] | None = None,
    listener: RunListener | None = None,
) -> Tally:
    """Labels the quarantined samples again and puts what they come to into new revisions of their units; what fails
    again stays listed. What an earlier retry had begun when it died is tried again with them. Then likewise what is
    being made anew, and what of it was made from labels that have been mended now.

    modalities: only these, and what is made from them; by default all. Samples that the corpus reader refused aren't
    tried, since the corpus is as it is; the tally has their number. Raises DatasetError for a modality that there
    isn't, and where the corpus, or what is to be tried, has changed since.
    """
    store, listener = Store(url, storage_options), listener or RunListener()
    manifest = require_manifest(store)
    check_modalities(store.url, modalities, manifest.modalities)
    tally, begun = Tally(store.url, manifest.modalities), unfinished_retries(store)
    for now, pending in _held(manifest):
        trial = _Trial.of(store, now, modalities, storage_options or {})
        plan, failures = trial.plan([line for lines in begun.values() for line in lines], pending)
        if plan.works:
            start_ray()
            make_environments(plan.environments, listener.say, listener.note)
            begun[begin_retry(store, failures)] = failures
            with raylet_watched():
                for result in label_units(plan, plan.works, Mode.REPAIR):
                    tally.add(result)
                    listener.labelled(tally)
        if not pending:
            refused = trial.failures(lambda name: name == CORPUS)
            tally.rejected = sum(one.error != LEFT_OUT for one in refused)
            tally.broken = [one.reason for one in refused if not one.key and one.error != LEFT_OUT]
    for path in begun:
        store.delete(path)
    _still_there(store.url, manifest, require_manifest(store), tally)
    return tally


def _held(manifest: Manifest) -> Iterator[tuple[Manifest, Collection[str]]]:
    """The dataset as readers have it; then, where there is something pending, as it will be, and what is pending, which
    may be made of what has been mended just now."""
    yield manifest, ()
    if manifest.pending:
        yield replace(manifest, modalities={**manifest.modalities, **manifest.pending}), manifest.pending


@dataclass(frozen=True)
class _Trial:
    """What there is to try again in a dataset as the manifest has it. graph: with the dataset's own cards; now: as the
    labelers are now; chosen: the modalities whose failures are tried."""

    store: Store
    manifest: Manifest
    recipe: Recipe
    now: StepGraph
    graph: StepGraph
    chosen: Collection[str]
    shards: Mapping[str, Shard]
    stocks: Mapping[str, Stock]
    finished: dict[str, Finished]

    @classmethod
    def of(cls, store: Store, manifest: Manifest, modalities: Sequence[str], options: Mapping[str, Any]) -> _Trial:
        recipe = recipe_of(manifest, store.address, options)
        now = step_graph(recipe)
        graph = _as_made(now, manifest)
        stocks = take_traced_stock(store, graph.cards, manifest.corpus.retired, manifest)
        finished = {name: stocks[name].finished(card) for name, card in graph.cards.items()}
        chosen, shards = graph.downstream(modalities or list(graph.cards)), taken_shards(store, manifest.corpus)
        return cls(store, manifest, recipe, now, graph, chosen, shards, stocks, finished)

    def failures(self, wanted: Callable[[str], bool]) -> list[Failure]:
        """Those that count, of the modalities that are wanted."""
        views = self.manifest.views["count"]
        standing = StandingLedgers(self.store).list(self.graph.cards, self.finished, views)
        return [line for one in standing if wanted(one.modality) for line in failures_of(self.store, one, views)]

    def plan(self, begun: Sequence[Failure], pending: Collection[str]) -> tuple[Plan, list[Failure]]:
        """With the work that there is, and what failed. begun: what earlier tries have begun with. pending: only these
        modalities, less what a run makes anew; empty for all."""
        url, cards = self.store.url, self.graph.cards
        reasons = stale(self.manifest)
        tried = set(pending) - reasons.keys() if pending else set(cards)
        failures = self.failures(lambda name: name in self.chosen and name in tried)
        failures += [one for one in begun if one.modality in cards and one.modality not in reasons]
        failed = samples_again(failures, self.finished, self.graph)
        half_done = {name: self.stocks[name].half_done(card, self.finished[name]) for name, card in cards.items()}
        done = {n: self.finished[n].units - (half_done[n] if pending else frozenset()) for n in cards if n in tried}
        pieces = (self._work(unit, keys, done) for unit, keys in failed.items())
        works = Worklist(work for work in pieces if work.todo)
        if not pending:
            _refuse_stale(url, self.manifest, self.graph, {name for work in works for name in work.todo})
            _refuse_half_done(url, failed, half_done)
        for name in {name for work in works for name in self.graph.made_for(work.todo, work.kept)}:
            _same_labeler(name, cards[name], self.now.cards[name])
        request = make_request(self.recipe, self.graph, self.manifest.corpus)
        growth, kept = Growth(Taken(), None, list(self.shards.values())), kept_labels(self.graph, self.finished)
        there = (growth, self.stocks, self.finished, kept)
        return Plan(self.recipe, request, self.graph, self.manifest, *there, works), failures

    def _work(self, unit: Unit, keys: Mapping[str, set[str]], there: Mapping[str, Collection[Unit]]) -> Work:
        if unit.shard not in self.shards:
            raise DatasetError(f"no listing of the corpus has the shard {unit.shard}: its samples can't be tried again")
        return work_again(unit, self.shards[unit.shard], keys, there, self.graph, self.finished)


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
        Places(f"{redact(url)}/manifests"),
    )


def _settings(card: ModalityCard) -> dict[str, Any]:
    """Of the labels alone: the tokenizer is that which the dataset holds."""
    settings: dict[str, Any] = {"labeler": card.labeler, "params": card.params, "keep": "labels"}
    settings |= {"weights": card.weights.source} if card.weights else {}
    return settings | ({"environment": {"pip": card.environment}} if card.environment else {})


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
    url: str, tried: Mapping[Unit, Collection[str]], half_done: Mapping[str, Collection[Unit]]
) -> None:
    """Raises DatasetError where an earlier try of what is to be tried has left labels without their tokens: those of a
    dependant may be made of what is mended now."""
    for unit, name in ((unit, name) for unit, names in tried.items() for name in names):
        if unit in half_done[name]:
            raise DatasetError(
                f"{url}: an earlier try of {name} was stopped half way in the unit {unit.name}: run the recipe again, "
                f"which finishes it, and then try what is left"
            )


def _still_there(url: str, before: Manifest, now: Manifest, tally: Tally) -> None:
    """Raises DatasetError where what was tried again isn't what readers get any more, or are about to."""
    for name in tally.rows:
        held = {card.generation for card in now.cards_of(name) if card.fitted}
        if held.isdisjoint(card.generation for card in before.cards_of(name) if card.fitted):
            raise DatasetError(f"{url}: {name} was replaced by another run meanwhile, and what was mended with it")


def _as_made(graph: StepGraph, manifest: Manifest) -> StepGraph:
    """The graph with the dataset's own cards; what was made without a modality that came later goes on without it."""
    cards = {name: manifest.modalities[name] for name in graph.cards}
    steps = (
        replace(step, wants=tuple(name for name in step.wants if name in cards[step.name].requires))
        for step in graph.steps
    )
    return StepGraph(tuple(steps), cards)
