"""Compaction: neighbouring units merged into shards of a given size, folder by folder.

A merged shard is written, read back, and only then named by the folder's list, from when on it is read. Nothing is
deleted: the units' own shards are superseded, and `tokenloom gc` deletes them once nobody reads them any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .cluster.raylet import raylet_watched
from .cluster.session import EngineError, start_ray
from .corpus.units import Unit
from .dataset.cards import ModalityCard
from .dataset.finished import Folder, Stock, folders_of, take_stock
from .dataset.layout import extension_of, stem_of
from .dataset.manifest import Manifest, require_manifest
from .dataset.merges import Merges, publish_merges
from .engine.merging import Merge, MergeResult, stream_merges
from .storage.store import Store


@dataclass(frozen=True)
class ShardSize:
    """The most that a merged shard holds; a unit that is larger stays by itself. bytes: of the units' own shards."""

    samples: int = 16_384
    bytes: int = 2**26


@dataclass
class Compacted:
    """What a compaction came to. merges: how many merged shards there are to make; done: of them; units, samples: in
    these, and bytes, counted for each modality's tokens and labels by themselves; problems: why shards can't be merged,
    by the path of the merged one."""

    url: str
    merges: int = 0
    done: int = 0
    units: int = 0
    samples: int = 0
    bytes: int = 0
    problems: dict[str, str] = field(default_factory=dict)


class CompactionListener:
    """Told what a compaction does, while it does it."""

    def merged(self, compacted: Compacted) -> None:
        """One more shard is there, or can't be made."""


@dataclass(frozen=True)
class _FolderPlan:
    """What is to be done in a folder. merges: shards to be made; loose: merged ones that may go, once others hold what
    they do of `needed`, the stems that somebody reads."""

    folder: str
    merges: list[Merge]
    loose: frozenset[str]
    needed: frozenset[str]

    def published(self, now: Merges, made: Sequence[Merge]) -> Merges:
        """The list that names what was made, too. Where somebody else has merged the same units otherwise meanwhile,
        his holds."""
        free = {None, *self.loose}
        added = {m.merged: m.stems for m in made if free.issuperset(now.holder(stem) for stem in m.stems)}
        held = {stem for stems in added.values() for stem in stems}
        kept = {
            merged: stems
            for merged, stems in now.shards.items()
            if merged not in self.loose or any(stem in self.needed and stem not in held for stem in stems)
        }
        return Merges({**added, **kept})


def compact(
    url: str,
    size: ShardSize | None = None,
    storage_options: Mapping[str, Any] | None = None,
    listener: CompactionListener | None = None,
) -> Compacted:
    """Merges what is finished of every modality; what was merged by a compaction that died is taken as it is.

    Shards that can't be read are left as they are, and told of. Raises DatasetError where there is no dataset,
    EngineError and StorageError where it can't go on.
    """
    store, listener = Store(url, storage_options), listener or CompactionListener()
    size, compacted = size or ShardSize(), Compacted(url)
    before: list[_FolderPlan] = []
    while True:
        plans = list(_plans(store, require_manifest(store), size))
        todo = [merge for plan in plans for merge in plan.merges if _path(merge) not in compacted.problems]
        if todo and plans == before:
            raise EngineError(f"{store.url}: {_path(todo[0])} was written and isn't there: does something delete it?")
        compacted.merges = compacted.done + len(todo)
        _make(store, plans, todo, compacted, listener)
        if not todo:
            return compacted
        before = plans  # and once more: what was finished meanwhile, or lost


def _make(
    store: Store,
    plans: Sequence[_FolderPlan],
    todo: Sequence[Merge],
    compacted: Compacted,
    listener: CompactionListener,
) -> None:
    """Makes merged shards, and names those of a folder as soon as all of them are there."""
    left = {plan.folder: sum(merge.folder == plan.folder for merge in todo) for plan in plans}
    made: dict[str, list[Merge]] = {plan.folder: [] for plan in plans}
    by_folder = {plan.folder: plan for plan in plans}

    def publish(folder: str) -> None:
        publish_merges(store, folder, lambda now: by_folder[folder].published(now, made[folder]))

    for folder in [folder for folder, count in left.items() if not count]:
        publish(folder)  # what nobody reads any more goes
    for result in _merged(store, todo) if todo else ():
        merge = result.merge
        if result.problem:
            compacted.problems[_path(merge)] = result.problem
            compacted.merges -= 1
        else:
            made[merge.folder].append(merge)
            compacted.done += 1
            compacted.units += len(merge.stems)
            compacted.samples += merge.samples
            compacted.bytes += result.bytes
        left[merge.folder] -= 1
        if not left[merge.folder]:
            publish(merge.folder)
        listener.merged(compacted)


def _merged(store: Store, merges: Sequence[Merge]) -> Iterator[MergeResult]:
    start_ray()
    with raylet_watched():
        yield from stream_merges(store, merges)


def _path(merge: Merge) -> str:
    return f"{merge.folder}/{merge.merged}.{extension_of(merge.folder)}"


def _plans(store: Store, manifest: Manifest, size: ShardSize) -> Iterator[_FolderPlan]:
    stocks = take_stock(store, manifest.modalities, manifest.corpus.retired)
    for name, card in manifest.modalities.items():
        finished = stocks[name].finished(card)
        units = [(unit, finished.revisions.get(unit, 0)) for unit in sorted(finished.units)]
        for path in folders_of(name, card) if card.fitted else ():
            sizes = {entry.name.rpartition(".")[0]: entry.size for entry in store.list(path, recursive=False)}
            needed = frozenset(_needed(stocks[name], path, manifest.cards_of(name)))
            yield _plan(path, stocks[name].folder(path), card.label_kind.extension, units, sizes, needed, size)


def _needed(stock: Stock, path: str, cards: Sequence[ModalityCard]) -> Iterator[str]:
    """The stems in a folder that somebody reads, or that a run goes on from."""
    units, revisions = stock.folder(path).latest()
    yield from (stem_of(unit, revisions.get(unit, 0)) for unit in units)
    for card in cards:
        if card.fitted and path in folders_of(stock.modality, card):
            finished = stock.finished(card)
            yield from (stem_of(unit, finished.revisions.get(unit, 0)) for unit in finished.units)


def _plan(
    path: str,
    folder: Folder,
    extension: str,
    units: Sequence[tuple[Unit, int]],
    sizes: Mapping[str, int],
    needed: frozenset[str],
    size: ShardSize,
) -> _FolderPlan:
    """Neighbours together, up to the size. A merged shard stays as it is that is at least half as large, and of which
    everything counts; the units of others are merged anew."""
    counts = {stem_of(unit, revision): unit.count for unit, revision in units}
    there = {merged: stems for merged, stems in folder.merges.shards.items() if merged in folder.merged}
    full = {
        merged
        for merged, stems in there.items()
        if all(stem in counts and folder.holder(stem) == merged for stem in stems)
        and (2 * sum(counts[stem] for stem in stems) >= size.samples or 2 * folder.merged[merged].size >= size.bytes)
    }
    groups: list[list[str]] = [[]]
    samples = taken = 0
    for stem, count in counts.items():
        holder = folder.holder(stem)
        share = folder.merged[holder].size // len(there[holder]) if holder in there else sizes.get(stem, 0)
        if holder in full or samples + count > size.samples or taken + share > size.bytes:
            groups.append([])
            samples = taken = 0
        if holder not in full:
            groups[-1].append(stem)
            samples, taken = samples + count, taken + share
    merges = [Merge(path, tuple(stems), extension) for stems in groups if stems]
    taken_out = [{folder.holder(stem) for stem in merge.stems} & there.keys() for merge in merges]
    worth = (m for m, out in zip(merges, taken_out, strict=True) if m.merged not in there and (out or len(m.stems) > 1))
    return _FolderPlan(path, list(worth), frozenset(folder.merges.shards.keys() - full), needed)
