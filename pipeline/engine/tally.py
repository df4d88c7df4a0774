"""The tally: what a run has done so far, and whether too much of it failed."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..dataset.manifest import ModalityCard
from .stream import UnitResult

_SOON = 100
"""Labels that must have come back before the share of failures is judged."""


class TooManyFailuresError(RuntimeError):
    """The run was stopped by `max_failures`."""


@dataclass
class Tally:
    """What a run has done so far, by modality. cards: of the recipe's modalities, with tokenizers once fitted."""

    output: str
    cards: dict[str, ModalityCard]
    units: int = 0
    samples: int = 0
    bytes: int = 0
    rejected: int = 0
    decodes: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    def add(self, result: UnitResult) -> None:
        self.units += 1
        self.samples += result.unit.count
        self.bytes += result.bytes
        self.rejected += result.rejected
        self.decodes += result.decodes
        for name, (rows, failed, _) in result.done.items():
            self.rows[name] = self.rows.get(name, 0) + rows
            self.failed[name] = self.failed.get(name, 0) + failed

    def check(self, most: float) -> None:
        """Raises TooManyFailuresError when more than the share `most` of the labels failed."""
        rows, failed = sum(self.rows.values()), sum(self.failed.values())
        if rows >= _SOON and failed > most * rows:
            worst = max(self.failed, key=lambda name: self.failed[name])
            raise TooManyFailuresError(
                f"{failed} of {rows} labels failed, more than max_failures = {most:g} allows, most of them "
                f"{worst}; for the reasons see `tokenloom quarantine {self.output}`"
            )
