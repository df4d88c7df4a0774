"""The quarantine: which samples failed to get which modalities, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from ..corpus.left_out import LEFT_OUT
from ..dataset.finished import list_finished
from ..dataset.layout import CORPUS
from ..dataset.ledger import Failure
from ..dataset.manifest import check_modalities, require_manifest
from ..dataset.standing import Ledgers, StandingLedgers, failures_of, read_failures
from ..storage.read_ahead import in_order
from ..storage.store import Store


@dataclass(frozen=True)
class Case:
    """What failed for one sample for one reason. modalities: each as (name, view), view None for all of the sample."""

    key: str
    modalities: tuple[tuple[str, int | None], ...]
    reason: str
    error: str
    unit: str

    @property
    def refused(self) -> bool:
        """Whether the corpus reader refused it: then no modality has it. Without a key it is a part of a shard."""
        return self.modalities[0][0] == CORPUS and self.error != LEFT_OUT


def list_failures(store: Store, modalities: Collection[str] | None = None) -> Iterator[Failure]:
    """Every line of the ledgers, unit by unit; a unit's refused samples first, then modality by modality. Behind them
    those of modalities that are being made anew, as `NAME (new)`.

    modalities: only these (`corpus` for what the corpus reader refused). Raises DatasetError for a name that the
    dataset doesn't have, and for a ledger that can't be read.
    """
    manifest = require_manifest(store)
    check_modalities(store.url, (name for name in modalities or () if name != CORPUS), manifest.modalities)
    standing, views, told = StandingLedgers(store), manifest.views["count"], set[str]()

    def untold(ledgers: Ledgers) -> list[Failure]:
        lines = {line for path in ledgers.paths if path in told for line in read_failures(store, path)}
        return [one for one in failures_of(store, ledgers, views) if one not in lines]

    for cards, mark in ((manifest.modalities, ""), (manifest.pending, " (new)")):
        finished = list_finished(store, cards, manifest.corpus.retired)
        found = standing.list(cards, finished, views)
        wanted = [one for one in found if modalities is None or one.modality in modalities]
        for failures in in_order(untold, [one for one in wanted if not told.issuperset(one.paths)]):
            yield from (replace(one, modality=one.modality + mark) for one in failures)
        told.update(path for one in wanted for path in one.paths)


def cases(failures: Iterable[Failure]) -> Iterator[Case]:
    """Failures, ordered by unit, put together for people: one case per sample and reason."""
    for unit, of_unit in groupby(failures, key=lambda failure: failure.unit):
        found: dict[tuple[str, str, str], list[tuple[str, int | None]]] = defaultdict(list)
        for failure in of_unit:
            found[failure.key, failure.reason, failure.error].append((failure.modality, failure.view))
        for (key, reason, error), modalities in found.items():
            yield Case(key, tuple(modalities), reason, error, unit)
