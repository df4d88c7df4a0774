"""What was made without a label that had failed, and that is there by now: it doesn't count as it is.

Ledgers alone tell of it, so that where nothing failed nothing is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import replace

from ..corpus.units import Unit
from ..storage.store import Store
from .cards import ModalityCard
from .failed_labels import readable
from .finished import Finished
from .layout import CORPUS
from .ledger import Failure
from .standing import StandingLedgers, read_ledgers


def made_without(
    store: Store,
    cards: Mapping[str, ModalityCard],
    finished: Mapping[str, Finished],
    views: int,
    standing: StandingLedgers | None = None,
) -> list[Failure]:
    """The lines of standing ledgers about labels that were made, or that failed, for want of others that are there now.
    Less those of modalities that were made from others than these cards have. standing: of a caller that asks again."""
    standing = standing or StandingLedgers(store)

    def lines(finished: Mapping[str, Finished]) -> Iterator[Failure]:
        """What the ledgers of these modalities tell; what can't be read of them is for `verify` to tell."""
        of_labels = standing.list({name: cards[name] for name in finished}, finished, views) if finished else []
        for data in read_ledgers(store, [one for one in of_labels if one.modality != CORPUS]):
            yield from dict.fromkeys(line for ledger in data for line in readable(ledger))

    made = {name: finished[name] for name, card in cards.items() if _is_made_from(card, cards)}
    waiting = [line for line in lines(made) if line.without in cards]
    if not waiting:
        return []
    units, needs = {line.unit for line in waiting}, {line.without for line in waiting}
    some = {name: replace(finished[name], units=_named(finished[name], units)) for name in needs}
    there = {(name, unit.name) for name, found in some.items() for unit in found.units}
    failed = {(line.modality, line.unit, line.key) for line in lines(some) if not line.is_note}
    found = (line for line in waiting if (line.without, line.unit) in there)
    return [line for line in found if (line.without, line.unit, line.key) not in failed]


def _is_made_from(card: ModalityCard, cards: Mapping[str, ModalityCard]) -> bool:
    needs = {need: cards[need].labels_generation for need in card.requires if need in cards}
    return bool(needs) and needs.items() <= card.requires.items()


def _named(finished: Finished, names: Collection[str]) -> Set[Unit]:
    return finished.units & {unit for unit in map(Unit.parse, names) if unit}
