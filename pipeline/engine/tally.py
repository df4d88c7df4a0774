"""The tally: what a run has done so far, and whether too much of it failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..checks.reasons import Group, ReasonCounts
from ..checks.status import Counted
from ..dataset.cards import ModalityCard
from ..dataset.layout import CORPUS
from ..dataset.standing import LabelCount
from .spent import StageTimes
from .stream import UnitResult

_SOON = 100
"""Labels that must have come back before the share of failures is judged, while a run goes on."""

_REFUSED = "what the corpus reader refused"


class TooManyFailuresError(RuntimeError):
    """The run was stopped by `max_failures`."""


@dataclass
class Tally:
    """What a run has done so far, by modality. again: bytes of compressed files of the corpus that were read once more,
    to come to where there was something to do. cards: those of the recipe, with tokenizers once fitted. rows, failed:
    labels, one for each view of each sample, and how many of them there aren't. rejected: samples that the corpus
    reader refused, and parts of the corpus that can't be read; broken: why these can't. superseded: bytes in the
    output, of these modalities, that the manifest names no more. empty: ids of the corpus shards that hold no sample.
    null: modalities without any value. times: by stage, what its workers did; reasons: why labels failed. whole: what
    the dataset's ledgers tell at the end, whichever run wrote them."""

    output: str
    cards: dict[str, ModalityCard]
    units: int = 0
    samples: int = 0
    bytes: int = 0
    again: int = 0
    rejected: int = 0
    decodes: int = 0
    superseded: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    null: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    times: dict[str, StageTimes] = field(default_factory=dict)
    reasons: ReasonCounts = field(default_factory=ReasonCounts)
    whole: Counted = field(default_factory=Counted)

    def add(self, result: UnitResult) -> None:
        self.units += 1
        self.samples += result.unit.count
        self.bytes += result.bytes
        self.again += result.again
        self.rejected += result.rejected
        self.decodes += result.decodes
        self.broken += result.broken
        for name, (rows, failed) in result.done.items():
            self.rows[name] = self.rows.get(name, 0) + rows
            self.failed[name] = self.failed.get(name, 0) + failed
        for spent in result.spent:
            self.times.setdefault(spent.stage, StageTimes()).add(spent, result.unit.name, result.unit.count)
        self.reasons.add(result.reasons)
        self.reasons.add(Group(CORPUS, one.error, one.reason, one.key, 1) for one in result.refused)

    def check(self, most: float, views: int) -> None:
        """Judges what the run has done so far, as soon as that is something. views: of each sample."""
        refused = self.rejected * views
        counts = {
            name: LabelCount(rows + refused, self.failed[name] + refused, refused) for name, rows in self.rows.items()
        }
        judge(counts, most, self.output, _SOON)


def judge(counts: Mapping[str, LabelCount], most: float, output: str, least: int = 1) -> None:
    """Raises TooManyFailuresError where more than the share `most` failed of all labels, or of one modality's, which
    those of others don't make good. least: labels, of fewer of which nothing is said.

    A sample that the corpus reader refused is one that failed in every modality.
    """
    for names in (list(counts), *([name] for name in counts)):
        rows, failed = sum(counts[name].rows for name in names), sum(counts[name].failed for name in names)
        if rows < least or failed <= most * rows:
            continue
        causes = {name: counts[name].failed - counts[name].refused for name in names}
        causes[_REFUSED] = sum(counts[name].refused for name in names)
        whose = "" if len(names) == len(counts) else f" of {names[0]}"
        raise TooManyFailuresError(
            f"{failed} of {rows} labels{whose} failed, more than max_failures = {most:g} allows, most of them "
            f"{max(causes, key=lambda name: causes[name])}; for the reasons see `tokenloom quarantine {output}`"
        )
