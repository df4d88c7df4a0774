"""Modalities that are null whatever the sample: most often a field that the corpus has under another name."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

from ..corpus.units import Unit, spread
from ..dataset.cards import ModalityCard
from ..dataset.finished import Finished
from ..dataset.reader import ColumnReader
from ..dataset.shards import NULL, BrokenShardError, read_token_table, split_member_name
from ..storage.store import Store

_LOOKED_AT = 4
"""Units that are looked into before a modality is said to be null."""

_READ_SIZE = 2**16


class NullSearch:
    """Looks into a few shards of each modality for a value, and into no shard twice."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, bool] = {}

    def find(self, cards: Mapping[str, ModalityCard], finished: Mapping[str, Finished], views: int) -> list[str]:
        """The modalities that have samples, and no value in any of the units that are looked at."""
        revisions = {name: found.revisions for name, found in finished.items()}
        reader = ColumnReader(self._store, cards, views, revisions)
        return [name for name in cards if self._is_null(reader, name, finished[name])]

    def _is_null(self, reader: ColumnReader, name: str, finished: Finished) -> bool:
        units = sorted(unit for unit in finished.units if unit.count)
        return bool(units) and not any(self._has_value(reader, name, unit) for unit in spread(units, _LOOKED_AT))

    def _has_value(self, reader: ColumnReader, name: str, unit: Unit) -> bool:
        tokens = reader.cards[name].keeps_tokens
        path = (reader.token_path if tokens else reader.label_path)(unit, name)
        if path not in self._seen:
            try:
                self._seen[path] = self._any_token(path) if tokens else self._any_label(path)
            except (BrokenShardError, FileNotFoundError, tarfile.TarError):
                return True  # what is broken is for `verify` to tell
        return self._seen[path]

    def _any_token(self, path: str) -> bool:
        tokens = read_token_table(self._store.open(path), ["tokens"])[1]["tokens"]
        return tokens.null_count < len(tokens)

    def _any_label(self, path: str) -> bool:
        """Reads up to the first label."""
        file = io.BufferedReader(self._store.open(path), _READ_SIZE)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            return any(split_member_name(info.name)[2] != NULL for info in tar if info.isreg())
