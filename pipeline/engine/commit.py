"""Commit: writing what one unit came to, so that a shard that can be seen is complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ...tokenizers.contract.token_spec import TokenSpec
from ..corpus.samples import Rejection
from ..corpus.units import Unit
from ..dataset.layout import CORPUS, label_path, ledger_path, sample_path, token_path
from ..dataset.ledger import Failure, digest_of, write_ledger
from ..dataset.manifest import ModalityCard
from ..dataset.reader import Column, ColumnReader
from ..dataset.shards import RowKeys, ShardMeta, write_labels, write_tokens
from ..storage.store import Store
from .labeling import Result

T = TypeVar("T")


@dataclass(frozen=True)
class UnitWriter:
    """Writes what the samples `keys` of a unit, with so many views each, came to, modality by modality."""

    store: Store
    unit: Unit
    keys: Sequence[str]
    views: int

    def reject(self, rejected: Sequence[Rejection]) -> str:
        """Lists in the quarantine what the corpus reader refused; the ledger's SHA-256, "" when there is nothing."""
        failures = [Failure(one.key, CORPUS, one.reason, one.error, self.unit.name) for one in rejected]
        data = write_ledger(failures)
        if data:
            self.store.create(ledger_path(CORPUS, self.unit), data)
        return digest_of(data)

    def commit(self, name: str, card: ModalityCard, result: Result, rejected: str = "") -> None:
        """Writes the ledger, then the shards: labels, and last the tokens, by which the unit is known to be done.

        rejected: as `reject` returned it. Whatever is there already stays: it was made of the same input.
        """
        ledger = write_ledger(result.failures)
        if ledger:
            self.store.create(ledger_path(name, self.unit), ledger)
        meta = ShardMeta(self.unit.name, name, card.fingerprint, digest_of(ledger), rejected)
        if card.keeps_labels:
            rows = RowKeys.of(self.keys, card.labels_per_sample(self.views))
            data = write_labels(rows, result.labels, card.label_kind.extension, meta)
            self.store.create(label_path(name, self.unit), data)
        if card.keeps_tokens:
            data = write_tokens(RowKeys.of(self.keys, self.views), result.tokens, _spec(card), meta)
            self.store.create(token_path(name, self.unit), data)

    def put_aside(self, name: str, card: ModalityCard, result: Result) -> None:
        """Writes the labels as the views see them, for a tokenizer to be fitted to."""
        rows = RowKeys.of([str(index) for index in range(len(result.sample))], 1)
        meta = ShardMeta(self.unit.name, name, card.fingerprint)
        data = write_labels(rows, result.sample, card.label_kind.extension, meta)
        self.store.create(sample_path(name, self.unit), data)

    def repair(self, name: str, card: ModalityCard, result: Result) -> None:
        """Puts the outcomes of the samples, which failed before, in the places that they have in the unit's shards.

        The ledger comes last: until it is written, the unit counts as one to try again.
        """
        reader, ledger = ColumnReader(self.store, {name: card}, self.views), write_ledger(result.failures)
        if card.keeps_labels:
            old = reader.labels(self.unit, name)
            rows, labels = RowKeys.of(old.keys, old.per_sample), self._filled(old, result.labels)
            meta = replace(old.meta, ledger=digest_of(ledger))
            self.store.replace(old.path, write_labels(rows, labels, card.label_kind.extension, meta))
        if card.keeps_tokens:
            old = reader.tokens(self.unit, name)
            rows, tokens = RowKeys.of(old.keys, old.per_sample), self._filled(old, result.tokens)
            meta = replace(old.meta, ledger=digest_of(ledger))
            self.store.replace(old.path, write_tokens(rows, tokens, _spec(card), meta))
        if ledger:
            self.store.replace(ledger_path(name, self.unit), ledger)
        else:
            self.store.delete(ledger_path(name, self.unit))

    def _filled(self, old: Column, new: Sequence[T | None]) -> list[T | None]:
        """The column's values, with what `new` has of the samples `keys` where it has nothing."""
        found = {
            (key, view): new[sample * old.per_sample + view]
            for sample, key in enumerate(self.keys)
            for view in range(old.per_sample)
        }
        places = [(key, view) for key in old.keys for view in range(old.per_sample)]
        return [found.get(place) if value is None else value for place, value in zip(places, old.values, strict=True)]


def _spec(card: ModalityCard) -> TokenSpec:
    assert card.tokens is not None
    assert card.tokens.spec is not None
    return card.tokens.spec
