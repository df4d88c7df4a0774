"""Commit: writing what one unit of one modality came to, so that a shard that can be seen is complete."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from ..corpus.corpus import Rejection
from ..corpus.units import Unit
from ..dataset.layout import CORPUS, label_path, ledger_path, token_path
from ..dataset.ledger import Failure
from ..dataset.manifest import ModalityCard
from ..dataset.shards import (
    Rows,
    ShardMeta,
    label_rows,
    read_labels,
    read_tokens,
    token_rows,
    write_labels,
    write_tokens,
)
from ..storage.store import Store

T = TypeVar("T")


@dataclass
class Result:
    """One modality of one unit. tokens: per row (sample and view). labels: encoded, per row or, for labelers that
    don't work on views, per sample. sample: encoded as a tokenizer gets them, cut by the views; for fitting alone."""

    tokens: list[np.ndarray | None] = field(default_factory=list)
    labels: list[bytes | None] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    sample: list[bytes | None] = field(default_factory=list)


def write_rejections(store: Store, unit: Unit, rejected: Sequence[Rejection]) -> str:
    """Writes what the corpus reader refused into the quarantine; its SHA-256, "" when there is nothing."""
    failures = [Failure(r.key, CORPUS, r.reason, r.error, unit.name) for r in rejected]
    return _write_ledger(store, unit, CORPUS, failures)


def write_result(
    store: Store,
    unit: Unit,
    name: str,
    card: ModalityCard,
    keys: Sequence[str],
    views: int,
    result: Result,
    rejected: str,
) -> None:
    """Writes ledger, labels and tokens, in this order: the ledger is there before the shard that refers to it.

    Shards that exist already are left as they are: their bytes are a function of the same input.
    """
    ledger = _write_ledger(store, unit, name, result.failures)
    meta = ShardMeta(unit.name, name, card.fingerprint, ledger, rejected)
    if card.keeps_labels:
        extension = card.label_kind.extension
        store.create(
            label_path(name, unit), write_labels(label_rows(keys, views, card), result.labels, extension, meta)
        )
    if card.keeps_tokens:
        assert card.tokens is not None
        assert card.tokens.spec is not None
        store.create(
            token_path(name, unit), write_tokens(token_rows(keys, views), result.tokens, card.tokens.spec, meta)
        )


def amend_result(
    store: Store, unit: Unit, name: str, card: ModalityCard, keys: Sequence[str], views: int, result: Result
) -> None:
    """Puts the outcomes of the samples `keys`, which failed before, in the places that they have in the unit's shards.

    The ledger comes last: until it is written, the unit counts as one to try again.
    """
    data = b"".join(failure.to_line() for failure in result.failures)
    ledger = hashlib.sha256(data).hexdigest() if data else ""
    if card.keeps_labels:
        old = read_labels(store.read(label_path(name, unit)))
        labels = _amended(old.rows, old.labels, label_rows(keys, views, card), result.labels)
        extension = card.label_kind.extension
        meta = replace(old.meta, ledger=ledger)
        store.replace(label_path(name, unit), write_labels(old.rows, labels, extension, meta))
    if card.keeps_tokens:
        assert card.tokens is not None
        assert card.tokens.spec is not None
        old = read_tokens(store.read(token_path(name, unit)))
        tokens = _amended(old.rows, old.tokens, token_rows(keys, views), result.tokens)
        meta = replace(old.meta, ledger=ledger)
        store.replace(token_path(name, unit), write_tokens(old.rows, tokens, card.tokens.spec, meta))
    if data:
        store.replace(ledger_path(name, unit), data)
    else:
        store.delete(ledger_path(name, unit))


def _amended(rows: Rows, old: Sequence[T | None], new_rows: Rows, new: Sequence[T | None]) -> list[T | None]:
    """`old`, with what `new` has where it has nothing."""
    found = dict(zip(zip(new_rows.keys, new_rows.views, strict=True), new, strict=True))
    places = zip(rows.keys, rows.views, old, strict=True)
    return [found.get((key, view)) if value is None else value for key, view, value in places]


def _write_ledger(store: Store, unit: Unit, modality: str, failures: Sequence[Failure]) -> str:
    if not failures:
        return ""
    data = b"".join(failure.to_line() for failure in failures)
    store.create(ledger_path(modality, unit), data)
    return hashlib.sha256(data).hexdigest()
