"""The plan: all that is known before anything runs, and whether it fits what the output holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ...labelers.contract.names import RESERVED
from ..corpus.corpus import Corpus, Shard
from ..corpus.growth import Growth, grown
from ..corpus.left_out import few
from ..corpus.listing import Found
from ..corpus.taken import Taken, is_compressed
from ..corpus.units import Unit
from ..dataset.aside import NOTHING_ASIDE, LabelsAside
from ..dataset.cards import ModalityCard
from ..dataset.finished import Finished, Stock, take_traced_stock
from ..dataset.layout import MANIFESTS
from ..dataset.listings import read_taken
from ..dataset.made_without import made_without
from ..dataset.manifest import CorpusCard, DatasetError, Manifest, read_manifest, stale
from ..dataset.second_tries import up_to_date, usable_labels
from ..storage.errors import told_url, without_credentials
from ..storage.local import names_by_links
from ..storage.store import Store
from .again import samples_again, work_again
from .recipe import Recipe, at_key
from .reconcile import Request, cards_for, reconcile
from .steps import StepGraph, reading_of, step_graph
from .worklist import Kept, Work, Worklist, worklist


@dataclass(frozen=True)
class Plan:
    """All that is known before anything runs. request: what the recipe asks for; manifest: that which the run begins
    with; graph: steps, with the cards of what the run makes; growth: what has become of the corpus; stocks: all that
    was there at the last look; kept: labels that are there, by modality; began: whether the run has written its
    manifest; aside: labels that were put aside, `kept` among others; unkept: what of modalities is kept no more, tokens
    or labels, though the dataset has it; taken_back: modalities that somebody had begun to make anew, and this request
    doesn't go on with."""

    recipe: Recipe
    request: Request
    graph: StepGraph
    manifest: Manifest
    growth: Growth
    stocks: Mapping[str, Stock]
    finished: dict[str, Finished]
    kept: dict[str, Kept]
    works: Worklist
    began: bool = False
    aside: LabelsAside = NOTHING_ASIDE
    unkept: Mapping[str, frozenset[str]] = field(default_factory=dict)
    taken_back: tuple[str, ...] = ()

    @property
    def shards(self) -> list[Shard]:
        """The shards of the corpus that something can be made of."""
        return self.growth.shards

    @property
    def bytes(self) -> int:
        """Bytes of the corpus that are left to read, as far as listings tell."""
        return sum(shard.size for shard in self.works.shards)

    @property
    def again(self) -> list[Work]:
        """The work that begins in the middle of a compressed file, all before which has to be read again."""
        return [work for work in self.works if work.start and is_compressed(work.shard)]

    @property
    def todo(self) -> list[str]:
        """Modalities that any unit lacks."""
        lacking = {name for todo, _ in self.works.kinds for name in todo}
        return [name for name in self.graph.cards if name in lacking]

    @property
    def labelled(self) -> set[str]:
        """Modalities of which labels are made, also in passing."""
        return set[str]().union(*(self.graph.made_for(todo, kept) for todo, kept in self.works.kinds))

    @property
    def environments(self) -> dict[tuple[str, ...], list[str]]:
        """The modalities that are made, also in passing, by workers that have something installed in place of the
        cluster's, by what that is."""
        making = at_work(self.graph, self.works) | self.graph.made_for(self.to_fit if self.works else (), ())
        found: dict[tuple[str, ...], list[str]] = {}
        for step in self.graph.steps:
            if step.environment and making & set(step.modalities):
                found.setdefault(step.environment, []).extend(name for name in step.modalities if name in making)
        return found

    @property
    def to_fit(self) -> list[str]:
        """Modalities whose tokenizers the dataset lacks."""
        return [name for name, card in self.graph.cards.items() if not card.fitted]

    @property
    def replacing(self) -> list[str]:
        """Modalities that are made anew beside those that readers get until then."""
        return [name for name in self._pending if self._pending[name].asked == self.graph.cards[name].asked]

    @property
    def abandoned(self) -> list[str]:
        """Modalities that another recipe has begun to make anew, which this one doesn't ask for."""
        return [name for name in self._pending if name not in self.replacing]

    @property
    def _pending(self) -> dict[str, ModalityCard]:
        return {name: self.manifest.pending[name] for name in self.graph.cards if name in self.manifest.pending}

    @property
    def kept_besides(self) -> dict[str, frozenset[str]]:
        """What of modalities is kept though the recipe doesn't ask for it: an earlier one did."""
        cards = {name: (card, self.request.cards[name]) for name, card in self.graph.cards.items()}
        return {name: card.kept - asked.kept for name, (card, asked) in cards.items() if card.kept - asked.kept}

    @property
    def stale(self) -> dict[str, list[str]]:
        """Why modalities of the dataset that this run doesn't make will be stale once it is done, by name."""
        after = replace(self.manifest, modalities={**self.manifest.modalities, **self.graph.cards})
        return {name: reasons for name, reasons in stale(after).items() if name not in self.graph.cards}


def at_work(graph: StepGraph, works: Iterable[Work]) -> set[str]:
    """The modalities of which the work needs labels or tokens made, also in passing."""
    kinds = works.kinds if isinstance(works, Worklist) else {(work.todo, work.kept) for work in works}
    return set[str]().union(*({*todo} | graph.made_for(todo, kept) for todo, kept in kinds))


def make_plan(recipe: Recipe, replacing: Collection[str] = (), take_changes: bool = False) -> Plan:
    """What the recipe comes to and what the output lacks; reads listings and the manifest, writes nothing.

    replacing: modalities that may be made anew, with what is made from them, though the output's were made otherwise.
    take_changes: whether shards of the corpus that have changed are made anew, and what is gone of it dropped.
    """
    store = Store(recipe.output, recipe.storage_options)
    old = read_manifest(store)
    recipe = _read_as_before(recipe, store, old)
    graph = step_graph(recipe)
    unknown = [name for name in replacing if name not in graph.cards]
    if unknown:
        raise DatasetError(f"--replace {unknown[0]}: the recipe has {', '.join(graph.cards)}")
    growth, corpus = _take_up(recipe, store, old, take_changes)
    if old is None:
        _refuse_foreign(store, graph.cards)
    request = make_request(recipe, graph, corpus, replacing)
    request = replace(request, seen=old.corpus if old else None, take_changes=take_changes)
    manifest = reconcile(old, request)
    graph = replace(graph, cards=cards_for(manifest, request))
    stocks = take_traced_stock(store, graph.cards, request.corpus.retired, manifest)
    if old is None and any(stock.folders for stock in stocks.values()):
        raise DatasetError(
            f"{store.url}: there are shards, but no {MANIFESTS}/ that say what they are; put them back from a copy, or "
            f"use another output"
        )
    held = old.modalities if old else {}
    unkept = {name: held[name].kept - card.kept for name, card in manifest.modalities.items() if name in held}
    taken_back = tuple(name for name in (old.pending if old else ()) if name not in manifest.pending)
    plan = Plan(
        recipe, request, graph, manifest, growth, stocks, {}, {}, Worklist(), unkept=unkept, taken_back=taken_back
    )
    refuse_partial(plan)
    return _with_work(plan, store, stocks)


def _refuse_foreign(store: Store, modalities: Collection[str]) -> None:
    """Raises DatasetError where an output without manifests holds what no run has left there."""
    ours = {*RESERVED, *modalities, "lost+found"}
    there = [name for name in store.children() if not name.startswith(".") and name.rstrip("/") not in ours]
    if there:
        raise DatasetError(
            f"{store.url}: holds {few(there)} and is no dataset, which would lie among them; choose an empty or a new "
            f"folder"
        )


def _read_as_before(recipe: Recipe, store: Store, old: Manifest | None) -> Recipe:
    """The recipe, with the corpus' format as the dataset has it where that is the same: one that is named and one that
    was found."""
    if old is None or not old.corpus.listings:
        return recipe
    before, asked = old.corpus.reading.get("format", "auto"), recipe.corpus.format
    if before == asked or {before, asked} - {"auto", read_taken(store, old.corpus).listings[0].format}:
        return recipe
    return recipe.model_copy(update={"corpus": recipe.corpus.model_copy(update={"format": before})})


def _take_up(recipe: Recipe, store: Store, old: Manifest | None, take_changes: bool) -> tuple[Growth, CorpusCard]:
    """What has become of the corpus, by fresh listings, and what the manifest is to say of it."""
    before, corpus = _taken(store, old, recipe), Corpus(recipe.corpus)
    with recipe.named(), at_key("corpus.url"):
        found = corpus.find(old.corpus.root if old else "", before.listings[0].format if before.listings else None)
        growth = grown(found, before, recipe.corpus.image, take_changes)
    with recipe.named(), at_key("output"):
        for name in _names_of(recipe.output, growth):
            corpus.refuse_output(name)
    with recipe.named(), at_key("corpus"):
        left_out = [*found.left_out, *corpus.check(growth.shards)]
    return growth, _corpus_card(recipe, found, growth, left_out)


def _names_of(output: str, growth: Growth) -> list[str]:
    """Where the output lies, by every name that leads there from the corpus' folders."""
    if "://" in output:
        return [output]
    shards = (*growth.shards, *growth.left)
    paths = ((one.root, one.path if one.format == "folder" else one.path.rpartition("/")[0]) for one in shards)
    return names_by_links(output, ("/".join(filter(None, path)) for path in paths))


def _taken(store: Store, manifest: Manifest | None, recipe: Recipe) -> Taken:
    """What the dataset has taken up; nothing where the recipe has other files read."""
    if manifest is None:
        return Taken()
    before, now = manifest.corpus.reading, reading_of(recipe)
    same = all(before.get(name) == now.get(name) for name in ("format", "image"))
    same &= ("text" in before) == ("text" in now)
    return read_taken(store, manifest.corpus) if same else Taken()


def refuse_partial(plan: Plan) -> None:
    """Raises DatasetError where what takes the place of others would be made of a part of the corpus alone."""
    growth = plan.growth
    if plan.replacing and growth.left:
        first = (growth.gone or growth.changed)[0]
        raise DatasetError(
            f"{plan.request.url}: {plan.replacing[0]} can't be made anew for {len(growth.left):,} of the corpus' "
            f"shards, in which files have changed or are gone (the first: {first}): say --take-changes, too, or give "
            f"the corpus as it was"
        )


def with_work(plan: Plan, store: Store) -> Plan:
    """The plan, with what is left to do of it by now."""
    stocks = take_traced_stock(store, plan.graph.cards, plan.request.corpus.retired, plan.manifest, plan.finished)
    return _with_work(plan, store, stocks)


def _with_work(plan: Plan, store: Store, stocks: Mapping[str, Stock]) -> Plan:
    cards = plan.graph.cards
    finished = {name: stocks[name].finished(card) for name, card in cards.items()}
    views = plan.recipe.views.count
    done = {name: up_to_date(store, stocks[name], card, finished[name], views) for name, card in cards.items()}
    kept = {name: usable_labels(store, stocks[name], card, done[name], views) for name, card in cards.items()}
    tries = {name: _tries(kept[need] for need in plan.graph.made_for([name], ())) for name in cards}
    aside = LabelsAside.below(store, cards, views, tries).less(kept)
    kept |= {name: (kept[name][0] | units, kept[name][1]) for name, units in aside.units.items()}
    works = worklist(plan.shards, done, kept, list(cards), _again(plan, store, finished, done))
    return replace(plan, stocks=stocks, finished=finished, kept=kept, works=works, aside=aside)


def _again(
    plan: Plan, store: Store, finished: Mapping[str, Finished], done: Mapping[str, Collection[Unit]]
) -> list[Work]:
    """Single samples, of units that there are, which were made without what is there by now."""
    lines = made_without(store, plan.graph.cards, finished, plan.recipe.views.count)
    shards, again = {shard.id: shard for shard in plan.shards}, samples_again(lines, finished, plan.graph)
    works = [
        work_again(unit, shards[unit.shard], keys, done, plan.graph, finished)
        for unit, keys in again.items()
        if unit.shard in shards
    ]
    return [work for work in works if work.todo]


def _tries(sources: Iterable[Kept]) -> Mapping[Unit, int]:
    """How often units were tried again, in all of these modalities together."""
    tries = Counter[Unit]()
    for _, revisions in sources:
        tries.update(revisions)
    return tries


def make_request(recipe: Recipe, graph: StepGraph, corpus: CorpusCard, replacing: Collection[str] = ()) -> Request:
    """What the recipe asks of the dataset's manifest."""
    return Request(
        url=without_credentials(recipe.output),
        corpus=corpus,
        seed=recipe.seed,
        views=recipe.views.model_dump(),
        units=recipe.units.model_dump(),
        cards=graph.cards,
        replacing=frozenset(graph.downstream(list(replacing))),
    )


def _corpus_card(recipe: Recipe, found: Found, growth: Growth, left_out: list[str]) -> CorpusCard:
    shards = [*growth.shards, *growth.left]
    return CorpusCard(
        url=[told_url(url) for url in recipe.corpus.urls],
        root=without_credentials(found.root),
        shards=len(shards),
        bytes=sum(shard.size for shard in shards),
        listings=[listing.digest for listing in growth.taken.listings],
        retired=sorted(growth.taken.retired),
        reading=reading_of(recipe),
        left_out=left_out,
    )
