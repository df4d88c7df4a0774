"""Commit: writing what one unit came to, so that a shard that can be seen is complete.

Every object is created once. Where a shard is there already with other bytes, another writer was quicker: then its
shard holds, and what hangs on it is left for whoever finds that it lacks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ...tokenizers.contract.token_spec import TokenSpec
from ..corpus.samples import Rejection
from ..corpus.units import Unit
from ..dataset.cards import ModalityCard
from ..dataset.failed_labels import failed_labels
from ..dataset.layout import CORPUS, label_path, ledger_path, sample_path, stem_of, token_path
from ..dataset.ledger import Failure, digest_of, write_ledger
from ..dataset.manifest import DatasetError
from ..dataset.reader import Column, ColumnReader
from ..dataset.shards import RowKeys, ShardMeta, write_labels, write_tokens
from ..storage.store import Store
from .labeling import Result


@dataclass(frozen=True)
class _Rows:
    """A shard's content. values: tokens or encoded labels; failures: why values are missing; rejected: the digest of
    what the corpus reader refused; before: why values were missing in the revision before; anew: the labels, by key and
    view, whose values are others than in it."""

    keys: Sequence[str]
    values: Sequence[Any]
    failures: Sequence[Failure]
    rejected: str
    before: Sequence[Failure] = ()
    anew: frozenset[tuple[str, int]] = frozenset()

    @property
    def changed(self) -> bool:
        return bool(self.anew) or {*self.failures} != {*self.before}


class Written(NamedTuple):
    """rows: labels that were made, or tried again, one for each view of each sample; failed: how many of them there
    aren't."""

    rows: int
    failed: int


@dataclass(frozen=True)
class UnitWriter:
    """Writes what the samples `keys` of a unit, with so many views each, came to, modality by modality.

    kept: modalities whose labels the dataset has; revisions: of the unit's shards, where they aren't 0.
    """

    store: Store
    unit: Unit
    keys: Sequence[str]
    views: int
    kept: Collection[str] = ()
    revisions: Mapping[str, int] | None = None

    def reject(self, rejected: Sequence[Rejection], generation: str) -> str:
        """Lists in the quarantine what the corpus reader refused; the ledger's SHA-256, "" when there is nothing.

        generation: of the corpus' reading.
        """
        failures = [Failure(one.key, CORPUS, one.reason, one.error, self.unit.name) for one in rejected]
        return self._write_ledger(CORPUS, generation, 0, failures)

    def commit(self, name: str, card: ModalityCard, result: Result, rejected: str = "") -> Written:
        """Writes ledgers and shards: labels, and last the tokens, by which the unit is known to be done.

        rejected: as `reject` returned it. Returns what then is there, of labels and of tokens.
        """
        revision = (self.revisions or {}).get(name, 0)
        failures: list[Failure] = []
        if card.keeps_labels and name not in self.kept:
            labels = _Rows(self.keys, result.labels, result.failures + result.notes, rejected)
            labels = self._with_earlier(name, card, labels, revision, tokens=False)
            if not self._write_labels(name, card, labels, revision):
                return self._written(self._standing(name, card, revision, tokens=False))
            failures += labels.failures
        if card.keeps_tokens:
            tokens = _Rows(self.keys, result.tokens, result.failures + result.untokenised + result.notes, rejected)
            tokens = self._with_earlier(name, card, tokens, revision, tokens=True)
            wrote = self._write_tokens(name, card, tokens, revision)
            failures += tokens.failures if wrote else self._standing(name, card, revision, tokens=True)
        return self._written(failures)

    def _with_earlier(self, name: str, card: ModalityCard, given: _Rows, revision: int, tokens: bool) -> _Rows:
        """The rows, with the values of the revision before where they have none: a later try loses nothing."""
        for number in reversed(range(revision)):
            reader = ColumnReader(self.store, {name: card}, self.views, {name: {self.unit: number}})
            with suppress(FileNotFoundError, DatasetError):  # what can't be read has nothing that could be lost
                old = (reader.tokens if tokens else reader.labels)(self.unit, name)
                return self._mended(reader, old, given.values, given.failures, self.keys)
        return given

    def _written(self, failures: Sequence[Failure]) -> Written:
        return Written(len(self.keys) * self.views, len(failed_labels(failures, self.views)))

    def put_aside(self, name: str, card: ModalityCard, result: Result, sample: str) -> Written:
        """Writes the labels as the views see them, for a tokenizer to be fitted to, in the place of those of an earlier
        try. sample: the digest of it."""
        rows = RowKeys.of([str(index) for index in range(len(result.sample))], 1)
        meta = ShardMeta(self.unit.name, name, card.labels_generation)
        data = write_labels(rows, result.sample, card.label_kind.extension, meta)
        self.store.replace(sample_path(name, sample, self.unit), data)
        return self._written(result.failures)

    def repair(self, name: str, card: ModalityCard, result: Result, again: Collection[str]) -> Written:
        """Writes a new revision of the unit's shards, with the outcomes of the samples `again`. An outcome that failed
        changes nothing where there is a value. Returns of their labels those that are there now and weren't before, or
        were others, and those that still aren't."""
        revision = (self.revisions or {}).get(name, 0)
        first = labels, tokens = self._both_mended(name, card, result, again, revision)
        while any(mended and mended.changed for mended in (labels, tokens)):
            revision += 1
            writing = ((self._write_labels, labels), (self._write_tokens, tokens))
            if all(write(name, card, mended, revision) for write, mended in writing if mended):
                break
            if labels and tokens and not self.store.exists(self._token_path(name, card, revision)):
                # somebody else is at it, or died at it: a run finishes what he began
                return Written(len(again) * self.views, len(again) * self.views)
            labels, tokens = self._both_mended(name, card, result, again, revision)  # what he mended stays mended
        before, after = ([rows for rows in both if rows] for both in (first, (labels, tokens)))
        failed = failed_labels((one for rows in after for one in rows.failures if one.key in again), self.views)
        tried = failed_labels((one for rows in before for one in rows.before if one.key in again), self.views)
        return Written(len(failed.union(tried, *(rows.anew for rows in before))), len(failed))

    def _both_mended(
        self, name: str, card: ModalityCard, result: Result, again: Collection[str], revision: int
    ) -> tuple[_Rows | None, _Rows | None]:
        """Labels and tokens of a revision, so far as they are kept, with the new values."""
        reader = ColumnReader(self.store, {name: card}, self.views, {name: {self.unit: revision}})
        labels = tokens = None
        if card.keeps_labels:
            old = reader.labels(self.unit, name)
            labels = self._mended(reader, old, result.labels, result.failures + result.notes, again)
        if card.keeps_tokens:
            old = reader.tokens(self.unit, name)
            now = result.failures + result.untokenised + result.notes
            tokens = self._mended(reader, old, result.tokens, now, again)
        return labels, tokens

    def _mended(
        self, reader: ColumnReader, old: Column, new: Sequence[Any], now: Sequence[Failure], again: Collection[str]
    ) -> _Rows:
        """A column with the new values of the samples `again`, and why it lacks what it lacks: as before of the samples
        that weren't tried, as `now` of the others."""
        found = {
            (key, view): new[sample * old.per_sample + view]
            for sample, key in enumerate(self.keys)
            if key in again
            for view in range(old.per_sample)
        }
        places = {(key, view): at for at, (key, view) in enumerate(product(old.keys, range(old.per_sample)))}
        values = [old.values[at] if found.get(place) is None else found[place] for place, at in places.items()]
        before = reader.failures(self.unit, old)
        told = [one for one in before if one.key not in again]
        told += [one for one in now if one.key in again]
        stays = {
            key for (key, view), label in found.items() if label is None and old.values[places[key, view]] is not None
        }
        told += _noted_still([one for one in before if one.is_note and one.key in stays], told)

        def lacking(failure: Failure) -> list[Failure]:
            """The failure, of no views but those that have no value."""
            views = range(old.per_sample) if failure.view is None else [failure.view % old.per_sample]
            lack = [view for view in views if values[places[failure.key, view]] is None]
            return [failure] if len(lack) == len(views) else [replace(failure, view=view) for view in lack]

        told.sort(key=lambda failure: places[failure.key, 0])
        left = [line for one in told for line in ([one] if one.is_note else lacking(one))]
        anew = frozenset(
            (key, view)
            for key, view in product(again, range(self.views))
            if not _equal(old.values[at := places[key, view % old.per_sample]], values[at])
        )
        return _Rows(old.keys, values, left, old.meta.rejected, before, anew)

    def _write_labels(self, name: str, card: ModalityCard, given: _Rows, revision: int) -> bool:
        """Whether the shard that then is there is this one, whoever wrote it."""
        generation = card.labels_generation
        ledger = self._write_ledger(name, generation, revision, given.failures)
        rows = RowKeys.of(given.keys, card.labels_per_sample(self.views))
        meta = ShardMeta(self.unit.name, name, generation, ledger, given.rejected)
        data = write_labels(rows, given.values, card.label_kind.extension, meta)
        return self.store.create(label_path(name, generation, self.unit, revision), data)

    def _write_tokens(self, name: str, card: ModalityCard, given: _Rows, revision: int) -> bool:
        """As `_write_labels`."""
        generation = card.tokens_generation
        ledger = self._write_ledger(name, generation, revision, given.failures)
        meta = ShardMeta(self.unit.name, name, generation, ledger, given.rejected)
        data = write_tokens(RowKeys.of(given.keys, self.views), given.values, _spec(card), meta)
        return self.store.create(self._token_path(name, card, revision), data)

    def _token_path(self, name: str, card: ModalityCard, revision: int) -> str:
        return token_path(name, card.tokens_generation, self.unit, revision)

    def _write_ledger(self, name: str, generation: str, revision: int, failures: Sequence[Failure]) -> str:
        data = write_ledger(failures)
        if data:
            path = ledger_path(name, generation, stem_of(self.unit, revision), digest_of(data))
            self.store.create(path, data)
        return digest_of(data)

    def _standing(self, name: str, card: ModalityCard, revision: int, tokens: bool) -> list[Failure]:
        """The failures that the shard tells of which another writer was quicker to write."""
        reader = ColumnReader(self.store, {name: card}, self.views, {name: {self.unit: revision}})
        column = (reader.tokens if tokens else reader.labels)(self.unit, name)
        return reader.failures(self.unit, column)


def _noted_still(notes: Sequence[Failure], now: Sequence[Failure]) -> Iterator[Failure]:
    """What there is to tell, beside what is told now, of labels that stay as they were made without others: to make
    them again has failed, and isn't tried again but with all that has."""
    for note in notes:
        others = [one for one in now if one.key == note.key]
        if all(one.without != note.without for one in others if one.is_note):
            why = next((f"; and not again, with it: {one.reason}" for one in others if not one.is_note), "")
            yield replace(note, without="", reason=f"{note.reason}{why}") if note.without else note


def _equal(one: bytes | np.ndarray | None, other: bytes | np.ndarray | None) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return one is other or (isinstance(one, bytes) and one == other)


def _spec(card: ModalityCard) -> TokenSpec:
    assert card.tokens is not None
    assert card.tokens.spec is not None
    return card.tokens.spec
