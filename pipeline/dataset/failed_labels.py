"""Which labels a line of the quarantine speaks of: the measure in which runs, `status` and `max_failures` count.

A unit's tokens and its labels each have a ledger. Where they were made at different times, what failed may differ; a
label that there isn't in one of them is one that failed, and one that there isn't in both is no more than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from .ledger import MADE_WITHOUT, BrokenLedgerError, Failure, read_ledger

_ALL_VIEWS = b'"view": null}\n'
"""The end of a ledger's line about all labels of a sample."""
_NOTE = f'"error": "{MADE_WITHOUT}"'.encode()
"""In a line about all labels of a sample, which are there."""


def failed_views(failure: Failure, views: int) -> range:
    """Of a sample's `views`, those whose labels there aren't: one label each. All of them where the line names none."""
    return range(views) if failure.view is None else range(failure.view, failure.view + 1)


def failed_labels(failures: Iterable[Failure], views: int) -> set[tuple[str, int]]:
    """The labels of one modality that there aren't, by key and view."""
    failed = (failure for failure in failures if not failure.is_note)
    return {(failure.key, view) for failure in failed for view in failed_views(failure, views)}


def each_once(failures: Iterable[Failure], views: int) -> Iterator[Failure]:
    """Of one modality's lines, those that tell of a label of which none before them did, and what else is told."""
    told: set[tuple[str, int | str]] = set()
    for failure in failures:
        labels = {(failure.key, failure.reason)} if failure.is_note else failed_labels([failure], views)
        if not labels <= told:
            told |= labels
            yield failure


def count_failed(ledgers: Sequence[bytes], views: int) -> int:
    """How many labels of one unit and modality the ledgers tell of. Where there is but one, its lines aren't read."""
    if len(ledgers) == 1:
        (ledger,) = ledgers
        return ledger.count(b"\n") + (views - 1) * ledger.count(_ALL_VIEWS) - views * ledger.count(_NOTE)
    return len(failed_labels((line for ledger in ledgers for line in readable(ledger)), views))


def readable(ledger: bytes) -> Iterator[Failure]:
    """Its lines, less what is broken of them, which is for `verify` to tell."""
    with suppress(BrokenLedgerError):
        yield from read_ledger(ledger)
