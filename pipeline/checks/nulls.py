"""Modalities that are null whatever the sample: most often a field that the corpus has under another name."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from enum import Enum

from ..corpus.unit_sets import UnitSet
from ..corpus.units import Unit, spread
from ..dataset.cards import ModalityCard
from ..dataset.finished import Finished
from ..dataset.layout import is_merged
from ..dataset.reader import ColumnReader
from ..dataset.shards import NULL, BrokenShardError, ShardMeta, read_labels, read_token_table, split_member_name
from ..storage.store import Store

LOOKED_AT = 256
"""Units that are looked into, at most, before a modality is said to be null; of most datasets all."""

_READ_SIZE = 2**16


class _Seen(Enum):
    """What a shard has: a value; none, and failures among what it lacks; or nulls alone."""

    VALUE, FAILURES, NULL = range(3)


def told_null(name: str) -> str:
    """That `NullSearch` has found a modality."""
    return f"{name} is null for every sample of the units looked at (all, or {LOOKED_AT})"


class NullSearch:
    """Looks into a few shards of each modality for a value, and into no shard twice."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[tuple[str, Unit], _Seen] = {}

    def find(self, cards: Mapping[str, ModalityCard], finished: Mapping[str, Finished], views: int) -> list[str]:
        """The modalities that have samples, and no value in any of the units that are looked at: though nothing failed
        in one of them, where that would be why."""
        revisions = {name: found.revisions for name, found in finished.items()}
        reader = ColumnReader(self._store, cards, views, revisions)
        return [name for name in cards if self._is_null(reader, name, finished[name])]

    def _is_null(self, reader: ColumnReader, name: str, finished: Finished) -> bool:
        units = UnitSet.of(finished.units).with_samples().in_order()
        if not units or self._look(reader, name, units[0]) is _Seen.VALUE:
            return False
        null = False
        for unit in spread(units, LOOKED_AT):
            found = self._look(reader, name, unit)
            if found is _Seen.VALUE:
                return False
            null = null or found is _Seen.NULL
        return null

    def _look(self, reader: ColumnReader, name: str, unit: Unit) -> _Seen:
        tokens = reader.cards[name].keeps_tokens
        path = (reader.token_path if tokens else reader.label_path)(unit, name)
        look = self._look_at_tokens if tokens else self._look_at_labels
        if (path, unit) not in self._seen:
            try:
                self._seen[path, unit] = look(path, unit)
            except (BrokenShardError, FileNotFoundError, tarfile.TarError):
                return _Seen.VALUE  # what is broken is for `verify` to tell
        return self._seen[path, unit]

    def _look_at_tokens(self, path: str, unit: Unit) -> _Seen:
        meta, table = read_token_table(self._store.open(path), ["tokens"], unit.name)
        return _seen(table["tokens"].null_count < len(table), bool(meta.ledger))

    def _look_at_labels(self, path: str, unit: Unit) -> _Seen:
        """Reads up to the first label; in a merged shard all that are the unit's."""
        if is_merged(path):
            shard = read_labels(self._store.open(path), unit.name)
            return _seen(any(label is not None for label in shard.labels), bool(shard.meta.ledger))
        file = io.BufferedReader(self._store.open(path), _READ_SIZE)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            failed = bool(ShardMeta.from_pairs(dict(tar.pax_headers)).ledger)
            return _seen(any(split_member_name(info.name)[2] != NULL for info in tar if info.isreg()), failed)


def _seen(value: bool, failed: bool) -> _Seen:
    return _Seen.VALUE if value else _Seen.FAILURES if failed else _Seen.NULL
