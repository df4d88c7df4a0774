"""Which labels a line of the quarantine speaks of: the measure in which runs, `status` and `max_failures` count."""

from __future__ import annotations

from .ledger import Failure


def failed_views(failure: Failure, views: int) -> range:
    """Of a sample's `views`, those whose labels there aren't: one label each. All of them where the line names none."""
    return range(views) if failure.view is None else range(failure.view, failure.view + 1)
