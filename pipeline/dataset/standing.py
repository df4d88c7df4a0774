"""Standing ledgers: of what lies in the quarantine, that which the dataset's shards refer to.

A ledger is written before its shard, so one can be left of a writer that died, or that another outran; and a unit that
was tried again has a new one. Which one counts, the shard alone says: that of tokens, and that of labels, of the same
modality, each its own.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..corpus.units import Unit, UnitNames
from ..storage.read_ahead import in_order
from ..storage.store import Store
from .cards import ModalityCard
from .failed_labels import each_once
from .finished import Finished, units_of
from .layout import CORPUS, LABELS, QUARANTINE, TOKENS, split_ledger_name
from .ledger import BrokenLedgerError, Failure, read_ledger
from .manifest import DatasetError
from .reader import ColumnReader
from .shards import BrokenShardError, ShardMeta, read_metas


class Ledgers(NamedTuple):
    """Those of one unit that count. modality: or `corpus`, for what its reader refused. paths: of a modality one; or
    two, where the unit's tokens and its labels tell otherwise of what failed."""

    modality: str
    unit: Unit
    paths: tuple[str, ...]


class _Ledger(NamedTuple):
    """One that is there. generation, revision: of the shard that it was written for; digest: the first digits of its
    SHA-256."""

    modality: str
    generation: str
    unit: Unit
    revision: int
    digest: str
    path: str


class StandingLedgers:
    """Finds them, by one listing and a few bytes of each shard that may have one. What was read once isn't read again,
    since no shard ever changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._metas: dict[str, Mapping[str, ShardMeta]] = {}

    def list(self, cards: Mapping[str, ModalityCard], finished: Mapping[str, Finished], views: int) -> list[Ledgers]:
        """Of all shards that the cards promise. Ordered by unit; a unit's refused samples first, then as `cards` has
        the modalities."""
        revisions = {name: found.revisions for name, found in finished.items()}
        reader = ColumnReader(self._store, cards, views, revisions)
        everywhere = units_of(finished.values())
        readings = {card.corpus_generation for card in cards.values()}
        fitted = {name: card for name, card in cards.items() if card.fitted}
        tokens = {(name, card.tokens_generation) for name, card in fitted.items() if card.keeps_tokens}
        labels = {(name, card.labels_generation) for name, card in fitted.items() if card.keeps_labels}
        standing: dict[tuple[str, Unit], dict[str, str]] = defaultdict(dict)
        of_tokens: list[tuple[_Ledger, str]] = []
        of_labels: list[tuple[_Ledger, str]] = []
        for one in self._listed():
            if one.modality == CORPUS:
                if one.generation in readings and one.unit in everywhere:
                    standing[CORPUS, one.unit][one.digest] = one.path
                continue
            for made, among, shard in ((tokens, of_tokens, reader.token_path), (labels, of_labels, reader.label_path)):
                counts = (one.modality, one.generation) in made and one.unit in finished[one.modality].units
                if counts and one.revision == reader.revision(one.unit, one.modality):
                    among.append((one, shard(one.unit, one.modality)))
        for candidates in (of_tokens, of_labels):
            # What the labels' ledger tells as the tokens' does stands already: no shard need be read for it.
            new = [(one, shard) for one, shard in candidates if one.digest not in standing[one.modality, one.unit]]
            self._read([shard for _, shard in new])
            for one, shard in new:
                if self._refers(shard, one):
                    standing[one.modality, one.unit][one.digest] = one.path
        places = {name: place for place, name in enumerate((CORPUS, *cards))}
        found = [Ledgers(name, unit, tuple(paths.values())) for (name, unit), paths in standing.items() if paths]
        return sorted(found, key=lambda one: (one.unit, places[one.modality]))

    def _listed(self) -> Iterator[_Ledger]:
        names = UnitNames()
        for entry in self._store.list(QUARANTINE):
            modality, _, rest = entry.name.partition("/")
            generation, _, file = rest.partition("/")
            parts = split_ledger_name(file)
            unit = names[parts[0]] if parts else None
            if parts and unit:
                yield _Ledger(modality, generation, unit, *parts[1:], f"{QUARANTINE}/{entry.name}")

    def _refers(self, shard: str, ledger: _Ledger) -> bool:
        """Whether the shard, of the ledger's unit and revision among others, names its digest."""
        meta = self._metas[shard].get(ledger.unit.name)
        return meta is not None and bool(meta.ledger) and meta.ledger.startswith(ledger.digest)

    def _read(self, paths: list[str]) -> None:
        new = [path for path in dict.fromkeys(paths) if path not in self._metas]
        self._metas.update(zip(new, in_order(self._of_shard, new, threads=16), strict=True))

    def _of_shard(self, path: str) -> Mapping[str, ShardMeta]:
        """By unit; nothing of a shard that can't be read, which is for `verify` to tell."""
        extension = TOKENS if path.endswith(f".{TOKENS}") else LABELS
        try:
            file = self._store.open(path)
            return read_metas(file if extension == TOKENS else io.BufferedReader(file, 2**14), extension)
        except (BrokenShardError, FileNotFoundError):
            return {}


class LabelCount(NamedTuple):
    """Of one modality. rows: its labels, one for each view of each sample, of samples that the corpus reader refused,
    too; failed: how many of them there aren't; refused: of these, the corpus reader's."""

    rows: int
    failed: int
    refused: int


def read_ledgers(store: Store, standing: Iterable[Ledgers]) -> Iterator[list[bytes]]:
    """The bytes of each one's ledgers, read ahead."""
    return in_order(lambda one: [store.read(path) for path in one.paths], standing, threads=16)


def failures_of(store: Store, ledgers: Ledgers, views: int) -> list[Failure]:
    """Their lines, each failure once. Raises as `read_failures`."""
    lines = (line for path in ledgers.paths for line in read_failures(store, path))
    return list(lines if ledgers.modality == CORPUS else each_once(lines, views))


def read_failures(store: Store, path: str) -> list[Failure]:
    """The lines of a ledger. Raises DatasetError for one that can't be read."""
    try:
        return list(read_ledger(store.read(path)))
    except BrokenLedgerError as error:
        raise DatasetError(f"{store.url}/{path}: {error}; `tokenloom verify` tells what else is broken") from None
