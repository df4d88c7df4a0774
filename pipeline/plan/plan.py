"""The plan: all that is known before anything runs, and whether it fits what the output holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..corpus.corpus import Corpus, Shard
from ..dataset.finished import Finished, list_finished
from ..dataset.layout import MANIFEST
from ..dataset.manifest import CorpusCard, DatasetError, Manifest, ModalityCard, changes, read_manifest
from ..storage.errors import without_credentials
from ..storage.store import Store
from .recipe import Recipe
from .steps import StepGraph, step_graph
from .worklist import Work, worklist


@dataclass(frozen=True)
class Plan:
    """All that is known before anything runs."""

    recipe: Recipe
    graph: StepGraph
    manifest: Manifest
    shards: list[Shard]
    finished: dict[str, Finished]
    works: list[Work]

    @property
    def bytes(self) -> int:
        """Bytes of the corpus that are left to read, as far as listings tell."""
        whole = {shard.id for shard in (work.shard for work in self.works)}
        return sum(shard.size for shard in self.shards if shard.id in whole)

    @property
    def todo(self) -> list[str]:
        """Modalities that any unit lacks."""
        lacking = {name for work in self.works for name in work.todo}
        return [name for name in self.graph.cards if name in lacking]

    @property
    def to_fit(self) -> list[str]:
        """Modalities whose tokenizers the dataset lacks."""
        cards = self.manifest.modalities
        return [name for name in self.recipe.modalities if (t := cards[name].tokens) is not None and t.spec is None]


def make_plan(recipe: Recipe, replacing: Sequence[str] = ()) -> Plan:
    """What the recipe comes to and what the output lacks; reads listings and dataset.json, writes nothing.

    replacing: modalities that may be made anew though their fingerprints differ from the output's.
    """
    graph = step_graph(recipe)
    corpus = Corpus(recipe.corpus)
    shards = corpus.shards()
    corpus.check(shards)
    store = Store(recipe.output, recipe.storage_options)
    old = read_manifest(store)
    manifest = _reconcile(old, _manifest(recipe, graph, shards), recipe, graph, replacing)
    graph = replace(graph, cards={name: manifest.modalities[name] for name in graph.cards})
    finished = list_finished(store, graph.cards)
    if old is None and any(found.units for found in finished.values()):
        raise DatasetError(
            f"{store.url}: there are shards, but no {MANIFEST} that says what they are; put it back from a copy, or "
            f"use another output"
        )
    for name in graph.downstream(replacing):
        finished[name] = Finished(frozenset())
    done = {name: found.units for name, found in finished.items()}
    works = worklist(shards, done, list(graph.cards))
    return Plan(recipe, graph, manifest, shards, finished, works)


def _manifest(recipe: Recipe, graph: StepGraph, shards: Sequence[Shard]) -> Manifest:
    urls = recipe.corpus.url if isinstance(recipe.corpus.url, list) else [recipe.corpus.url]
    digest = hashlib.sha256("\n".join(sorted(shard.id for shard in shards)).encode()).hexdigest()
    return Manifest(
        corpus=CorpusCard(
            url=[without_credentials(url) for url in urls],
            shards=len(shards),
            bytes=sum(shard.size for shard in shards),
            digest=digest,
            reading=recipe.corpus.model_dump(exclude={"url", "storage_options"}, exclude_defaults=True),
        ),
        seed=recipe.seed,
        views=recipe.views.model_dump(),
        units=recipe.units.model_dump(),
        modalities=graph.cards,
    )


def _reconcile(
    old: Manifest | None, new: Manifest, recipe: Recipe, graph: StepGraph, replacing: Sequence[str]
) -> Manifest:
    """The manifest that the run will leave. Raises DatasetError where the output was made otherwise."""
    unknown = [name for name in replacing if name not in graph.cards]
    if unknown:
        raise DatasetError(f"--replace {unknown[0]}: the recipe has {', '.join(graph.cards)}")
    if old is None:
        return new
    where = without_credentials(recipe.output)
    for name in ("seed", "views", "units"):
        if getattr(old, name) != getattr(new, name):
            raise DatasetError(
                f"{where}: was made with {name} = {getattr(old, name)}, and the recipe says {getattr(new, name)}; "
                f"go back to the former, or use another output"
            )
    anew = set(graph.downstream(replacing))
    modalities = {}
    for name, card in new.modalities.items():
        before = old.modalities.get(name)
        modalities[name] = card if before is None or name in anew else _kept(where, name, before, card, graph)
    return replace(new, modalities=modalities | {n: c for n, c in old.modalities.items() if n not in modalities})


def _kept(where: str, name: str, old: ModalityCard, new: ModalityCard, graph: StepGraph) -> ModalityCard:
    if old.fingerprint != new.fingerprint:
        stale = ", ".join(graph.downstream([name]))
        raise DatasetError(
            f"{where}: {name} was made differently:\n  "
            + "\n  ".join(changes(old, new))
            + f"\n  Make it anew with --replace {name} (which also makes anew: {stale}), or use another output"
        )
    return replace(
        old,
        keeps_tokens=old.keeps_tokens or new.keeps_tokens,
        keeps_labels=old.keeps_labels or new.keeps_labels,
    )
