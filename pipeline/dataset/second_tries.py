"""Second tries, and which first ones they outdate.

The labels of a unit, and the tokens that were made from them by one tokenizer or another, have revisions each of their
own. What lacks nothing is outdated by no other's: so that what readers have whole is never made anew in its place.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from ..corpus.units import Unit
from ..storage.store import Store
from .cards import ModalityCard
from .finished import Finished, Stock
from .standing import StandingLedgers


def up_to_date(store: Store, stock: Stock, card: ModalityCard, finished: Finished, views: int) -> Set[Unit]:
    """The finished units, less those of which a second try was stopped half way, and those that lack a value and of
    whose labels, or of another generation's tokens, there is a later revision."""
    begun = finished.units - stock.half_done(card, finished)
    later = {unit for unit, number in stock.tries(card).items() if number > finished.revisions.get(unit, 0)}
    return begun - _lacking(store, stock.modality, card, finished, begun & later, views)


def usable_labels(
    store: Store, stock: Stock, card: ModalityCard, done: Set[Unit], views: int
) -> tuple[Set[Unit], dict[Unit, int]]:
    """The units whose labels may be taken, and revisions as of `Finished`. Where a label is lacking, and there are
    tokens of a later revision, from a second try that kept these alone, the labels don't count, and the revision is
    that of the tokens: they are made again. done: the card's units that are up to date."""
    units, latest = stock.kept_labels(card)
    later = {unit: number for unit, number in stock.tries(card).items() if number > latest.get(unit, 0)}
    labels, started = replace(card, keeps_tokens=False, keeps_labels=True), stock.finished(card).units - done
    doubtful = units & later.keys() - started
    sound = doubtful - _lacking(store, stock.modality, labels, Finished(units, revisions=latest), doubtful, views)
    later = {unit: number for unit, number in later.items() if unit not in sound}
    return units - later.keys(), {**latest, **later}


def _lacking(
    store: Store, name: str, card: ModalityCard, finished: Finished, units: Set[Unit], views: int
) -> frozenset[Unit]:
    """Those of `units` whose shards tell of something that failed. They alone are looked into."""
    if not units:
        return frozenset()
    some = replace(finished, units=units)
    standing = StandingLedgers(store).list({name: card}, {name: some}, views)
    return frozenset(one.unit for one in standing if one.modality == name)
