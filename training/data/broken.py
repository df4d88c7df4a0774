"""What can't be read: where a recipe says so it is masked, and told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.dataset.reader import ColumnReader
from .ride_along import PIXELS, CorpusPixels, HeldUnit, read_held

LOG = logging.getLogger("tokenloom.training")


@dataclass
class Skipping:
    """Reads units as `read_held` does. A modality whose shard is broken or missing is one that the unit's samples lack:
    they stay where they stand in the order, and so does all else. So are pixels that the corpus no longer has.

    Each is logged once a process. Storage that doesn't answer isn't skipped: StorageError.
    """

    _told: set[str] = field(default_factory=set)

    def __call__(
        self, reader: ColumnReader, unit: Unit, stored: Sequence[str], pixels: CorpusPixels | None
    ) -> HeldUnit:
        try:
            return read_held(reader, unit, stored, pixels)
        except DatasetError as error:
            whole = error
        readable = [name for name in stored if self._try(reader, unit, [name], None)]
        held = self._try(reader, unit, readable, None) if readable else None
        if held is None:  # none can be read, or they aren't of the same samples, and nobody knows which is wrong
            self._tell(str(whole), unit)
            readable, held = [], HeldUnit(reader.views)
        elif pixels:
            held = self._try(reader, unit, readable, pixels) or held
        wanted = frozenset([*stored, PIXELS] if pixels else stored)
        return replace(held, skipped=wanted - {*readable, *([PIXELS] if held.pixels else [])})

    def _try(
        self, reader: ColumnReader, unit: Unit, stored: Sequence[str], pixels: CorpusPixels | None
    ) -> HeldUnit | None:
        try:
            return read_held(reader, unit, stored, pixels)
        except DatasetError as error:
            self._tell(str(error), unit)
            return None

    def _tell(self, what: str, unit: Unit) -> None:
        if what not in self._told:
            self._told.add(what)
            LOG.warning("masked in %d samples: %s", unit.count, what)
