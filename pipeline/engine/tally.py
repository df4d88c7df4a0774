"""The tally: what a run has done so far, and whether too much of it failed."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..dataset.cards import ModalityCard
from .stream import UnitResult

_FEW = 3
_SOON = 100
"""Labels that must have come back before the share of failures is judged, while a run goes on."""


class TooManyFailuresError(RuntimeError):
    """The run was stopped by `max_failures`."""


@dataclass
class Tally:
    """What a run has done so far, by modality. cards: of the recipe's modalities, with tokenizers once fitted.
    superseded: bytes in the output, of these modalities, that the manifest names no more. empty: ids of the corpus
    shards that hold no sample. null: modalities without any value. broken: why parts of the corpus can't be read.
    notes: on what lies in its shards and isn't taken, and left_out: the first of them."""

    output: str
    cards: dict[str, ModalityCard]
    units: int = 0
    samples: int = 0
    bytes: int = 0
    rejected: int = 0
    decodes: int = 0
    superseded: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    null: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    notes: int = 0
    left_out: list[str] = field(default_factory=list)

    def add(self, result: UnitResult) -> None:
        self.units += 1
        self.samples += result.unit.count
        self.bytes += result.bytes
        self.rejected += result.rejected
        self.decodes += result.decodes
        self.broken += result.broken
        self.notes += len(result.left_out)
        self.left_out = [*self.left_out, *result.left_out][:_FEW]
        for name, (rows, failed, _) in result.done.items():
            self.rows[name] = self.rows.get(name, 0) + rows
            self.failed[name] = self.failed.get(name, 0) + failed

    def check(self, most: float, ended: bool = False) -> None:
        """Raises TooManyFailuresError when more than the share `most` of the labels failed. ended: the run has.

        A sample that the corpus reader refused is one that failed in every modality.
        """
        refused = self.rejected * len(self.rows)
        rows, failed = sum(self.rows.values()) + refused, sum(self.failed.values()) + refused
        if failed <= most * rows or (rows < _SOON and not ended):
            return
        counts = {**self.failed, "samples refused by the corpus reader": refused}
        raise TooManyFailuresError(
            f"{failed} of {rows} labels failed, more than max_failures = {most:g} allows, most of them "
            f"{max(counts, key=lambda name: counts[name])}; for the reasons see `tokenloom quarantine {self.output}`"
        )
