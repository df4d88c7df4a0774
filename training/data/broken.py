"""Shards that can't be read: where a recipe says so, what they hold is masked, and told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.dataset.reader import ColumnReader
from .unit_tokens import Tokens, read_unit

LOG = logging.getLogger("tokenloom.training")


@dataclass
class Skipping:
    """Reads units as `read_unit` does. A modality whose shard is broken or missing is one that the unit's samples lack:
    they stay where they stand in the order, and so does all else. skipped: what was told, with the samples concerned.

    Storage that doesn't answer isn't skipped: StorageError.
    """

    skipped: dict[str, int] = field(default_factory=dict)

    def __call__(self, reader: ColumnReader, unit: Unit, modalities: Sequence[str]) -> dict[str, Tokens]:
        try:
            return read_unit(reader, unit, modalities)
        except DatasetError as error:
            whole = error
        lacking = _lacking(unit.count * reader.views)
        readable = [name for name in modalities if self._can_read(reader, unit, name)]
        try:
            found = read_unit(reader, unit, readable) if readable else {}
        except DatasetError:  # each can be read, and they aren't of the same samples: nobody knows which is wrong
            self._tell(str(whole), unit)
            found = {}
        return {name: found.get(name, lacking) for name in modalities}

    def _can_read(self, reader: ColumnReader, unit: Unit, name: str) -> bool:
        try:
            read_unit(reader, unit, [name])
        except DatasetError as error:
            self._tell(str(error), unit)
            return False
        return True

    def _tell(self, what: str, unit: Unit) -> None:
        if what not in self.skipped:
            self.skipped[what] = unit.count
            LOG.warning("masked in %d samples: %s", unit.count, what)


def _lacking(rows: int) -> Tokens:
    nothing = np.zeros(rows, np.int64)
    return Tokens(np.zeros(0, np.uint16), nothing, nothing, np.zeros(rows, bool))
