"""A run: from a recipe to a finished dataset, doing only what the output lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..tokenizers.contract.tokenizer import Tokenizer
from ..tokenizers.contract.vocabulary import Vocabulary
from .checks.status import LedgerCounts
from .cluster.alike import check_nodes
from .cluster.environments import make_environments
from .cluster.raylet import raylet_watched
from .cluster.room import room_made
from .cluster.session import EngineError, start_ray
from .cluster.size import ClusterSize, cluster_size
from .cluster.waiting import Pool, explained, waits_told, without_room
from .corpus.corpus import Corpus, UnitLimits
from .corpus.left_out import few
from .corpus.refusals import why_refused
from .corpus.units import Unit
from .dataset.aside import remove_aside
from .dataset.cards import ModalityCard
from .dataset.dataset import Dataset, open_dataset
from .dataset.finished import empty_shards, superseded, units_of
from .dataset.layout import ATTEMPTS, FIT, MANIFESTS
from .dataset.listings import store_listing
from .dataset.manifest import DatasetError, Manifest, publish, replace_options
from .engine.config import Mode, stage_configs
from .engine.stream import ReaderConfig, UnitResult, stream
from .engine.tally import Tally, judge
from .fitting.fit import fitted_by_another, provide_tokenizer, vocabulary_for
from .fitting.job import FitError
from .fitting.listener import FitListener
from .fitting.sample import (
    SampleFailures,
    given_tokenizer,
    lacking_vocabulary,
    remove_sample,
    sample_digest,
    store_vocabulary,
    to_put_aside,
    try_again,
    with_vocabulary,
)
from .plan.origins import plugin_distributions
from .plan.plan import Plan, at_work, make_plan, refuse_partial, with_work
from .plan.recipe import Recipe, RecipeError, at_key, load_recipe, parse_recipe
from .plan.reconcile import OvertakenError, cards_for, completed, reconcile
from .plan.sampling import sample_works
from .plan.stages import Stage, have_room, least_workers, stages
from .plan.tokenizer_choice import given_vocabulary, perceptual_source
from .plan.weights import WeightsSource
from .plan.worklist import Work
from .storage.store import Store, redact


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

    def note(self, text: str) -> None:
        """What is good to know meanwhile; nothing begins by it."""

    def labelled(self, tally: Tally) -> None:
        """One more unit is done."""


def execute(plan: Plan, limit: int | None = None, listener: RunListener | None = None) -> Tally:
    """Makes what the plan lists.

    Raises RecipeError where the cluster hasn't the workers that the recipe asks for, before anything is written; then
    TooManyFailuresError, EngineError, StorageError; whatever is committed by then stays and isn't made again.
    DatasetError where another run has replaced meanwhile what this one makes.
    """
    recipe, listener = plan.recipe, listener or RunListener()
    store = Store(recipe.output, recipe.storage_options)
    tally = Tally(redact(recipe.output), plan.graph.cards)
    plan, given = _begun(plan, store, listener)
    with raylet_watched() if plan.works else nullcontext():  # to the end: what comes after the work may take long, too
        if plan.works:
            plan = _made(plan, store, limit, tally, listener, given)
        return _judged(plan, store, tally)


def _made(
    plan: Plan, store: Store, limit: int | None, tally: Tally, listener: RunListener, given: Mapping[str, Tokenizer]
) -> Plan:
    """Has all that is left made by Ray's workers; the plan with what then is left, as of `_label`."""
    recipe = plan.recipe
    pools = _pools(stages(plan.graph, recipe, cluster_size()))
    with waits_told(pools, listener.note):
        check_nodes(_local_paths(plan, store), plugin_distributions(recipe, Path.cwd()))
        if plan.to_fit:
            plan = _fit(plan, store, listener, given)
        tally.cards = plan.graph.cards
        listener.say("labelling")
        return _label(plan, store, limit, tally, listener)


def _judged(plan: Plan, store: Store, tally: Tally) -> Tally:
    """Looks at what is there now, hands over what takes the place of others, and tells of all of it."""
    recipe = plan.recipe
    _clean(plan, store)
    seen, plan = plan, _published(plan, store)
    if plan.graph.cards != seen.graph.cards:  # else the last look holds, however long its listings took
        plan = with_work(plan, store)
    finished = plan.finished
    ledgers = LedgerCounts(store)
    tally.whole = ledgers.read(plan.graph.cards, finished, recipe.views.count)
    judge(tally.whole.labels, recipe.max_failures, plan.request.url)
    manifest = _handed_over(plan, store)
    tally.superseded = superseded(store, manifest, plan.stocks)
    tally.empty = empty_shards(units_of(finished.values()))
    tally.null = ledgers.nulls.find(plan.graph.cards, finished, recipe.views.count)
    return tally


def _pools(groups: Sequence[Stage]) -> dict[str, Pool]:
    """By what their workers make."""
    return {", ".join(stage.modalities): Pool(stage.request, stage.min_workers) for stage in groups}


def _local_paths(plan: Plan, store: Store) -> list[str]:
    """The paths that workers need, of this machine's file system. The output's is there once it has a manifest."""
    weights = [step.weights.source for step in plan.graph.steps if step.weights]
    output = [f"{store.address}/{MANIFESTS}"] if store.is_local else []
    return sorted({*output, *(path for path in (*(s.root for s in plan.shards), *weights) if path.startswith("/"))})


def _label(plan: Plan, store: Store, limit: int | None, tally: Tally, listener: RunListener) -> Plan:
    """Labels what is left; the plan with what then is left: nothing, unless there is a limit.

    Where another run was quicker with a unit's labels, its tokens may be lacking still: so it looks again.
    """
    while plan.works:
        whole = plan.works.whole
        mode = Mode.COMMIT if whole else Mode.REPAIR  # single samples last, of what then is there
        for result in label_units(plan, whole or plan.works, mode, limit):
            tally.add(result)
            listener.labelled(tally)
            tally.check(plan.recipe.max_failures, plan.recipe.views.count)
        before, plan = plan.works, with_work(plan, store)
        if limit is not None:
            break
        if plan.works == before:
            left = plan.works[0]
            first = f"{left.todo[0]} of {left.shard.path or left.shard.url}"
            raise EngineError(
                f"{store.url}: shards that were written aren't there ({first}, the first): does something delete them?"
            )
    return plan


def label_units(
    plan: Plan, works: Sequence[Work], mode: Mode, limit: int | None = None, sample: str = ""
) -> Iterator[UnitResult]:
    """Streams the units of `works`, at least `limit` samples of them, through the stages that they need. sample: as of
    StageConfig."""
    recipe = plan.recipe
    groups = stages(plan.graph, recipe, cluster_size())
    if mode is Mode.SAMPLE:
        todo = set(works[0].todo)
        wanted = todo.union(*(plan.graph.made_for(work.todo, ()) for work in works))
        groups = [replace(g, steps=tuple(s for s in g.steps if wanted & set(s.modalities))) for g in groups]
        groups = [group for group in groups if group.steps]
    else:
        wanted = at_work(plan.graph, works)
        groups = [group for group in groups if not group.environment or wanted & set(group.modalities)]
    reader = ReaderConfig(recipe.corpus, UnitLimits(recipe.units.samples, recipe.units.bytes), limit, plan.aside)
    return stream(works, reader, stage_configs(plan, groups, mode, sample))


def _fit(plan: Plan, store: Store, listener: RunListener, given: Mapping[str, Tokenizer]) -> Plan:
    """Puts labels of a sample of the corpus aside, fits the tokenizers to them and stores them. given: tokenizers that
    are trained already, by modality."""
    recipe, cards, works = plan.recipe, dict(plan.graph.cards), _sample(plan)
    places = [Unit(work.shard.id, work.start, work.stop, 0).place for work in works]
    aside, sample = to_put_aside(cards), sample_digest(cards, works)
    failed: dict[str, SampleFailures] = {}
    if aside:
        try_again(store, plan.graph, aside, sample)
        listener.say(f"labelling a sample to fit tokenizers to ({', '.join(aside)})")
        works_aside = [replace(work, todo=tuple(aside)) for work in works]
        results = list(label_units(plan, works_aside, Mode.SAMPLE, sample=sample))
        if not any(result.unit.count for result in results):
            raise EngineError(_nothing_to_fit_to(plan, works, results))
        failed = {name: one for name in aside if (one := _failed(plan, name, results)).failures}
        for name, one in failed.items():
            if one.are_all:
                raise FitError(f"modalities.{name}: there is nothing to fit a tokenizer to: {one}")
    cards = _with_vocabulary(plan, store, works, sample, listener)
    for name in plan.to_fit:
        if name in aside:
            listener.say(f"fitting the tokenizer of {name}")
        whence = perceptual_source(recipe, name)
        cards[name] = provide_tokenizer(
            store, name, cards[name], recipe.seed, sample, given.get(name), listener, whence, places, failed.get(name)
        )
    request = replace(plan.request, cards=cards)
    plan = _published(replace(plan, request=request), store)
    remove_sample(store, aside, sample)
    return with_work(plan, store)


def _sample(plan: Plan) -> list[Work]:
    """Of the corpus, what tokenizers are fitted to."""
    recipe = plan.recipe
    limits = UnitLimits(recipe.units.samples, recipe.units.bytes)
    return sample_works(Corpus(recipe.corpus), plan.shards, recipe.fit.units, limits, plan.kept)


def _nothing_to_fit_to(plan: Plan, works: Sequence[Work], results: Sequence[UnitResult]) -> str:
    """Why, and where there may be more in the corpus, how to have it read."""
    names, most = few([work.shard.path or work.shard.url for work in works]), plan.recipe.fit.units
    refused = [one for result in results for one in result.refused]
    why = "; ".join(why_refused(refused, sum(not one.is_of_shard for one in refused))) or "they hold none"
    told = f"there is no usable sample to fit tokenizers to in {names}: {why}"
    if len(works) < most:
        return told
    options = replace_options(plan.to_fit)
    return f"{told}. There may be more to read than these {most}: `fit.units` in the recipe, with {options}"


def _failed(plan: Plan, name: str, results: Sequence[UnitResult]) -> SampleFailures:
    """What failed of a modality's labels in the fitting sample."""
    in_order = sorted(results, key=lambda result: result.unit)
    failures = [one for result in in_order for one in result.failures if one.modality == name and not one.is_note]
    labels = sum(result.unit.count for result in results)
    labels *= plan.graph.cards[name].labels_per_sample(plan.recipe.views.count)
    aside = plan.aside.units
    sources = [plan.kept[need][0] - aside.get(need, frozenset()) for need in plan.graph.made_for([name], ())]
    kept = [one for one in failures if any(Unit.parse(one.unit) in units for units in sources)]
    return SampleFailures(labels, failures, plan.request.url if kept else "")


def _with_vocabulary(
    plan: Plan, store: Store, works: Sequence[Work], sample: str, listener: RunListener
) -> dict[str, ModalityCard]:
    """The cards, with the text vocabulary where a tokenizer that is to be made wants one, or with the tokenizers of a
    driver who was first."""
    cards, given = dict(plan.graph.cards), given_vocabulary(plan.recipe)
    if given is not None:
        store_vocabulary(store, given)
    if lacking_vocabulary(cards) is None:
        return cards
    listener.say("making the text vocabulary")
    vocabulary: Vocabulary | FileNotFoundError
    try:
        vocabulary = vocabulary_for(plan.recipe, store, cards, works, sample)
    except FileNotFoundError as error:
        vocabulary = error
    # Who was first may have cleared the sample away, in part by now: then what he made holds.
    cards = {name: fitted_by_another(store, name, card) or card for name, card in cards.items()}
    if lacking_vocabulary(cards) is None:
        return cards
    if isinstance(vocabulary, FileNotFoundError):
        raise vocabulary
    digest = store_vocabulary(store, vocabulary)
    return {name: with_vocabulary(card, digest) for name, card in cards.items()}


def check_work(plan: Plan, size: ClusterSize) -> dict[str, Tokenizer]:
    """All that can be refused of a plan's work before anything is written, which is what `doctor` asks, too: stages
    that a cluster of that size has no room for, and trained tokenizers that aren't for their modalities. The tokenizers
    that the recipe names, by modality. Raises RecipeError."""
    stages(plan.graph, plan.recipe, size)
    return _given(plan)


def _given(plan: Plan) -> dict[str, Tokenizer]:
    """The trained tokenizers that the recipe names, for modalities that lack theirs. RecipeError for one that isn't for
    the modality's labels."""
    given = {}
    for name in plan.to_fit:
        settings, card = plan.recipe.modalities[name].tokenizer, plan.graph.cards[name]
        if settings and settings.weights:
            with plan.recipe.named(), at_key(f"modalities.{name}.tokenizer.weights"):
                folder = WeightsSource.of(plan.recipe, settings.weights).resolve().path
                given[name] = given_tokenizer(name, card, folder)
    return given


def _begun(plan: Plan, store: Store, listener: RunListener) -> tuple[Plan, dict[str, Tokenizer]]:
    """The plan, once a manifest names what the run makes and of what; another one, where somebody else has taken up
    the corpus since it was made. With the trained tokenizers that the recipe names."""
    while True:
        given = {}
        if plan.works:
            start_ray()
            given = check_work(plan, cluster_size())
            _await_room(plan, listener)
            make_environments(plan.environments, listener.say, listener.note)
        if plan.growth.added:
            store_listing(store, plan.growth.added)
        try:
            return _published(plan, store), given
        except OvertakenError:
            plan = make_plan(plan.recipe, plan.request.replacing, plan.request.take_changes)


def _await_room(plan: Plan, listener: RunListener) -> None:
    """Waits for the nodes that an autoscaler has to bring for the least workers. RecipeError where it can't."""
    size = cluster_size()
    groups = stages(plan.graph, plan.recipe, size)
    if have_room(groups, size):
        return
    pools = _pools(groups)
    wanting = without_room(pools, size.nodes) or pools
    told = "; ".join(explained(name, pools[name].asked, size.nodes) for name in wanting)
    with raylet_watched():
        came = room_made(least_workers(groups), lambda: listener.note(f"waiting for nodes: {told}"))
    if not came:
        try:
            stages(plan.graph, plan.recipe, replace(cluster_size(), scales=False))
        except RecipeError as error:
            raise RecipeError(f"{error}; the autoscaler has no type of node for this, or may start no more") from None


def _published(plan: Plan, store: Store) -> Plan:
    """Writes the manifest that names what the run makes, beside what other drivers have written there meanwhile; the
    plan with what it says, the tokenizers that they fitted among it. Raises OvertakenError as `reconcile` does, unless
    the run has begun: others may take up more of the corpus then."""

    def change(now: Manifest | None) -> Manifest:
        begun = now is not None and plan.began
        return reconcile(now, replace(plan.request, corpus=now.corpus) if begun and now else plan.request)

    manifest = publish(store, change)
    graph = replace(plan.graph, cards=cards_for(manifest, plan.request))
    return replace(plan, manifest=manifest, graph=graph, began=True)


def _clean(plan: Plan, store: Store) -> None:
    """Removes what this run, and those like it that died, needed until now; others may be at work."""
    own = {step.name for step in plan.graph.steps}
    for entry in store.list(ATTEMPTS):
        _, _, mark = entry.name.partition("/")  # behind the unit
        if mark.partition("/")[0] in own:
            store.delete(f"{ATTEMPTS}/{entry.name}")
    if not plan.works:
        remove_aside(store)
    # Another run, slower with the same sample, puts labels aside for a tokenizer that is there by then.
    cards, left = plan.graph.cards, {child.strip("_/") for child in store.children(FIT)}
    late = [name for name in cards if name in left and cards[name].fitted]
    if late:
        remove_sample(store, late, sample_digest(cards, _sample(plan)))
    store.remove_stale_temporaries()


def _handed_over(plan: Plan, store: Store) -> Manifest:
    """The manifest that gives readers what takes the place of others, where all of it is there."""
    manifest = plan.manifest
    if plan.replacing and not with_work(plan, store).works:  # others may have begun to make them anew meanwhile
        refuse_partial(plan)
        manifest = publish(store, lambda now: completed(now, plan.replacing, plan.graph.cards))
    cards_for(manifest, plan.request)  # raises where readers won't get what was made
    retired = [shard.path for shard in plan.shards if shard.id in manifest.corpus.retired]
    if retired:
        raise DatasetError(
            f"{store.url}: another run has taken up changes of the corpus meanwhile, in {retired[0]} among others: run "
            f"the recipe again"
        )
    return manifest
