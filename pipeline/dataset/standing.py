"""Standing ledgers: of what lies in the quarantine, that which the dataset's shards refer to.

A ledger is written before its shard, so one can be left of a writer that died, or that another outran; and a unit that
was tried again has a new one. Which one counts, the shard alone says.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from ..corpus.left_out import LEFT_OUT
from ..corpus.units import Unit, UnitNames
from ..storage.read_ahead import in_order
from ..storage.store import Store
from .cards import ModalityCard
from .failed_labels import failed_views
from .finished import Finished
from .layout import CORPUS, LABELS, QUARANTINE, TOKENS, split_ledger_name
from .ledger import BrokenLedgerError, Failure, read_ledger
from .manifest import DatasetError
from .reader import ColumnReader
from .shards import BrokenShardError, ShardMeta, read_metas


class Ledger(NamedTuple):
    """One that counts. modality: or `corpus`, for what its reader refused."""

    modality: str
    unit: Unit
    path: str


class StandingLedgers:
    """Finds them, by one listing and a few bytes of each shard that may have one. What was read once isn't read again,
    since no shard ever changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._metas: dict[str, Mapping[str, ShardMeta]] = {}

    def list(self, cards: Mapping[str, ModalityCard], finished: Mapping[str, Finished], views: int) -> list[Ledger]:
        """Ordered by unit; a unit's refused samples first, then as `cards` has the modalities."""
        revisions = {name: found.revisions for name, found in finished.items()}
        reader = ColumnReader(self._store, cards, views, revisions)
        everywhere = frozenset().union(*(found.units for found in finished.values()))
        readings = {card.corpus_generation for card in cards.values()}
        candidates: list[tuple[Ledger, str]] = []
        names = UnitNames()
        for entry in self._store.list(QUARANTINE):
            modality, _, rest = entry.name.partition("/")
            generation, _, file = rest.partition("/")
            parts = split_ledger_name(file)
            unit = names[parts[0]] if parts else None
            if parts is None or unit is None:
                continue
            ledger, card = Ledger(modality, unit, f"{QUARANTINE}/{entry.name}"), cards.get(modality)
            if modality == CORPUS and generation in readings and unit in everywhere:
                candidates.append((ledger, ""))
            elif card and card.fitted and unit in finished[modality].units:
                made = card.generation, reader.revision(unit, modality)
                if (generation, parts[1]) == made:
                    path = reader.token_path if card.keeps_tokens else reader.label_path
                    candidates.append((ledger, path(unit, modality)))
        self._read([path for _, path in candidates if path])
        places = {name: place for place, name in enumerate((CORPUS, *cards))}
        standing = [ledger for ledger, path in candidates if not path or self._refers(path, ledger)]
        return sorted(standing, key=lambda one: (one.unit, places[one.modality]))

    def _refers(self, shard: str, ledger: Ledger) -> bool:
        """Whether the shard, of the ledger's unit and revision among others, names its digest."""
        parts, meta = split_ledger_name(ledger.path.rpartition("/")[2]), self._metas[shard].get(ledger.unit.name)
        return parts is not None and meta is not None and bool(meta.ledger) and meta.ledger.startswith(parts[2])

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


def count_labels(
    store: Store, cards: Mapping[str, ModalityCard], finished: Mapping[str, Finished], views: int
) -> dict[str, LabelCount]:
    """What the finished units came to, of samples by their names, of failures by the ledgers that stand."""
    failed, refused = Counter[str](), Counter[str]()
    ledgers = StandingLedgers(store).list(cards, finished, views)
    for ledger, data in zip(ledgers, in_order(lambda one: store.read(one.path), ledgers, threads=16), strict=True):
        lines = (line for line in _readable(data) if line.error != LEFT_OUT)
        labels = sum(len(failed_views(line, views)) for line in lines)
        if ledger.modality == CORPUS:
            refused.update({name: labels for name in cards if ledger.unit in finished[name].units})
        else:
            failed[ledger.modality] += labels
    return {
        name: LabelCount(finished[name].samples * views + refused[name], failed[name] + refused[name], refused[name])
        for name in cards
    }


def read_failures(store: Store, path: str) -> list[Failure]:
    """The lines of a ledger. Raises DatasetError for one that can't be read."""
    try:
        return list(read_ledger(store.read(path)))
    except BrokenLedgerError as error:
        raise DatasetError(f"{store.url}/{path}: {error}; `tokenloom verify` tells what else is broken") from None


def _readable(ledger: bytes) -> Iterator[Failure]:
    """Broken lines are for `verify` to tell."""
    with suppress(BrokenLedgerError):
        yield from read_ledger(ledger)
