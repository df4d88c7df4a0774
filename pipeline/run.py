"""A run: from a recipe to a finished dataset, doing only what the output lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..tokenizers.contract.tokenizer import Tokenizer
from .cluster.raylet import raylet_watched
from .cluster.session import start_ray
from .cluster.size import cluster_size
from .corpus.corpus import UnitLimits
from .dataset.dataset import Dataset, open_dataset
from .dataset.layout import ATTEMPTS, MANIFEST, ledger_folder, tokenizer_folder
from .dataset.manifest import ModalityCard, read_manifest
from .engine.config import Mode, stage_configs
from .engine.stream import ReaderConfig, UnitResult, stream
from .engine.tally import Tally
from .fitting.fit import provide_tokenizer, vocabulary_for
from .fitting.listener import FitListener
from .fitting.sample import given_tokenizer, needs_vocabulary, remove_sample, store_vocabulary, to_put_aside
from .plan.plan import Plan, make_plan
from .plan.recipe import Recipe, RecipeError, load_recipe, parse_recipe
from .plan.stages import stages
from .plan.tokenizer_choice import perceptual_source
from .plan.weights import localise
from .plan.worklist import Work, sample_of
from .storage.store import Store


def run(recipe: str | Path | Mapping[str, Any] | Recipe, *, limit: int | None = None) -> Dataset:
    """Makes what the recipe describes and the output lacks, and opens the dataset.

    recipe: a file, the name of a shipped recipe, its content as a dict, or a Recipe. limit: stop after the unit that
    holds the limit-th sample. Ray is started where it isn't running, and left running.

    Raises RecipeError for a mistake in the recipe, DatasetError where the output was made otherwise,
    TooManyFailuresError past `max_failures`, EngineError and StorageError where the run can't go on.
    """
    if isinstance(recipe, Mapping):
        recipe = parse_recipe(recipe)
    elif not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    execute(make_plan(recipe), limit=limit)
    return open_dataset(recipe.output, recipe.storage_options)


class RunListener(FitListener):
    """Told what a run does, while it does it."""

    def labelled(self, tally: Tally) -> None:
        """One more unit is done."""


def execute(
    plan: Plan, replacing: Sequence[str] = (), limit: int | None = None, listener: RunListener | None = None
) -> Tally:
    """Makes what the plan lists.

    Raises TooManyFailuresError, EngineError, StorageError; whatever is committed by then stays and isn't made again.
    """
    recipe, listener = plan.recipe, listener or RunListener()
    store = Store(recipe.output, recipe.storage_options)
    _remove(store, plan.graph.downstream(replacing))
    tally = Tally(recipe.output, plan.graph.cards)
    if plan.works:
        start_ray()
        with raylet_watched():
            plan = _published(plan, store)
            if plan.to_fit:
                plan = _fit(plan, store, listener)
            tally.cards = plan.graph.cards
            listener.say("labelling")
            for result in label_units(plan, plan.works, Mode.COMMIT, limit):
                tally.add(result)
                listener.labelled(tally)
                tally.check(recipe.max_failures)
    _finish(plan, store)
    tally.check(recipe.max_failures, ended=True)
    return tally


def label_units(plan: Plan, works: Sequence[Work], mode: Mode, limit: int | None = None) -> Iterator[UnitResult]:
    """Streams the units of `works`, at least `limit` samples of them, through the stages that they need."""
    recipe = plan.recipe
    groups = stages(plan.graph, recipe, cluster_size())
    if mode is Mode.SAMPLE:
        wanted = plan.graph.made_for(works[0].todo, kept=False)
        groups = [replace(g, steps=tuple(s for s in g.steps if wanted & set(s.modalities))) for g in groups]
        groups = [group for group in groups if group.steps]
    reader = ReaderConfig(recipe.corpus, UnitLimits(recipe.units.samples, recipe.units.bytes), limit)
    return stream(works, reader, stage_configs(plan, groups, mode))


def _fit(plan: Plan, store: Store, listener: RunListener) -> Plan:
    """Puts labels of a sample of the corpus aside, fits the tokenizers to them and stores them."""
    recipe, cards = plan.recipe, dict(plan.graph.cards)
    given = _given(plan)
    sample = sample_of(plan.shards, recipe.fit.units)
    lacks_vocabulary = needs_vocabulary(store, cards)
    aside = to_put_aside(cards, train_vocabulary=lacks_vocabulary and recipe.vocabulary is None)
    if aside:
        listener.say(f"labelling a sample to fit tokenizers to ({', '.join(aside)})")
        for _ in label_units(plan, [replace(work, todo=tuple(aside)) for work in sample], Mode.SAMPLE):
            pass
    if lacks_vocabulary:
        listener.say("making the text vocabulary")
        store_vocabulary(store, vocabulary_for(recipe, store, cards, sample))
    for name in plan.to_fit:
        if name in aside:
            listener.say(f"fitting the tokenizer of {name}")
        whence = perceptual_source(recipe, name)
        cards[name] = provide_tokenizer(store, name, cards[name], recipe.seed, given.get(name), listener, whence)
    manifest = replace(plan.manifest, modalities={**plan.manifest.modalities, **cards})
    plan = _published(replace(plan, manifest=manifest, graph=replace(plan.graph, cards=cards)), store)
    remove_sample(store, aside)
    return plan


def _given(plan: Plan) -> dict[str, Tokenizer]:
    """The trained tokenizers that the recipe names, for modalities that lack theirs. RecipeError for one that isn't for
    the modality's labels."""
    given = {}
    for name in plan.to_fit:
        settings, card = plan.recipe.modalities[name].tokenizer, plan.graph.cards[name]
        if settings and settings.weights:
            try:
                given[name] = given_tokenizer(name, card, localise(settings.weights, plan.recipe.storage_options))
            except ValueError as error:
                raise RecipeError(f"modalities.{name}.tokenizer.weights: {error}") from None
    return given


def _remove(store: Store, modalities: Sequence[str]) -> None:
    for name in modalities:
        for folder in (name, ledger_folder(name), tokenizer_folder(name)):
            for entry in store.list(folder):
                store.delete(f"{folder}/{entry.name}")
    remove_sample(store, modalities)


def _published(plan: Plan, store: Store) -> Plan:
    """Writes dataset.json, with what another driver wrote there meanwhile: modalities that this recipe lacks, and
    tokenizers that it fitted. The plan with all that."""
    now = read_manifest(store)
    theirs = now.modalities if now else {}
    cards = {name: _fitted(card, theirs.get(name)) for name, card in plan.manifest.modalities.items()}
    manifest = replace(plan.manifest, modalities=cards | {n: c for n, c in theirs.items() if n not in cards})
    if manifest != now:
        store.replace(MANIFEST, manifest.to_bytes())
    return replace(
        plan, manifest=manifest, graph=replace(plan.graph, cards={name: cards[name] for name in plan.graph.cards})
    )


def _fitted(mine: ModalityCard, theirs: ModalityCard | None) -> ModalityCard:
    """My card, with their tokenizer where they have fitted the same one and I haven't."""
    if theirs is None or theirs.fingerprint != mine.fingerprint or not (mine.tokens and theirs.tokens):
        return mine
    return mine if mine.tokens.spec else replace(mine, tokens=theirs.tokens)


def _finish(plan: Plan, store: Store) -> None:
    """Leaves nothing behind that isn't part of the dataset."""
    for entry in store.list(ATTEMPTS):
        store.delete(f"{ATTEMPTS}/{entry.name}")
    store.remove_stale_temporaries()
    cards = _published(plan, store).manifest.modalities
    if all(card.tokens is None or card.tokens.spec is not None for card in cards.values()):  # no driver is fitting
        remove_sample(store, list(cards))
