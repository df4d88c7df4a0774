"""What `verify` looks at within one unit: every bit of its shards, their rows against each other, their ledgers."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np

from ..corpus.units import Unit
from ..dataset.cards import ModalityCard
from ..dataset.layout import CORPUS, LABELS, TOKENS, is_merged, ledger_path
from ..dataset.ledger import BrokenLedgerError, Failure, read_ledger
from ..dataset.shard_meta import parts_of, rows_digest
from ..dataset.shards import (
    BrokenShardError,
    LabelShard,
    RowKeys,
    TokenShard,
    read_labels,
    read_pairs,
    read_tokens,
    verify_checksum,
)
from ..storage.recent import RecentObjects
from ..storage.store import Store

Problem: TypeAlias = Literal[
    "damaged", "missing", "foreign", "misplaced", "contradiction", "duplicate", "stale", "unfinished"
]

MAKE_ANEW = "delete it and run the recipe again, which makes it anew"

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Fault:
    """One finding. object: its path in the dataset, or the corpus shard that it is about; way_out: what to do."""

    problem: Problem
    object: str
    what: str
    way_out: str


@dataclass(frozen=True)
class Held:
    """A shard of a unit that counts. stem: of its name, with the revision, which a merged shard has not."""

    name: str
    card: ModalityCard
    path: str
    stem: str

    @property
    def is_merged(self) -> bool:
        return is_merged(self.path)

    @property
    def is_tokens(self) -> bool:
        return self.path.endswith(f".{TOKENS}")

    @property
    def generation(self) -> str:
        return self.card.tokens_generation if self.is_tokens else self.card.labels_generation


@dataclass(frozen=True)
class Holding:
    """What the output lists of one unit."""

    unit: Unit
    shards: tuple[Held, ...]


@dataclass
class Findings:
    """What the check of one unit came to. keys: of its samples in order, as far as they could be read."""

    unit: Unit
    keys: list[str] = field(default_factory=list)
    shards: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class _Read:
    """A shard whose bits are right."""

    held: Held
    shard: TokenShard | LabelShard
    keys: tuple[str, ...]
    per_sample: int

    @property
    def path(self) -> str:
        return self.held.path


def check_unit(store: Store, views: int, holding: Holding, deep: bool, merged: RecentObjects | None = None) -> Findings:
    """Everything about one unit that takes its content to know. merged: through which merged shards are read, which
    checks their bits. deep: also decode and check every label."""
    found, merged = Findings(holding.unit), merged or RecentObjects(store, 1, verify_checksum)
    good: list[_Read] = []
    for held in holding.shards:
        try:
            data = (merged if held.is_merged else store).read(held.path)
            if not held.is_merged:
                found.bytes += len(data)
                verify_checksum(data)
            shard = (read_tokens if held.is_tokens else read_labels)(data, holding.unit.name)
        except FileNotFoundError:
            found.faults.append(Fault("missing", held.path, "it was listed and is gone", "run the recipe again"))
            continue
        except BrokenShardError as error:
            found.faults.append(Fault("damaged", held.path, str(error), MAKE_ANEW))
            continue
        found.shards += not held.is_merged
        per_sample = views if held.is_tokens else held.card.labels_per_sample(views)
        read = _Read(held, shard, tuple(shard.rows.keys[::per_sample]), per_sample)
        faults = list(_misplaced(read, holding.unit))
        faults = faults or list(_contents(read, _carried_rows(data, holding.unit), deep))
        found.faults += faults
        if not faults:
            good.append(read)
    _check_together(store, holding, good, found)
    return found


def _misplaced(read: _Read, unit: Unit) -> Iterator[Fault]:
    """Whether the shard is what its name says."""
    meta, held = read.shard.meta, read.held
    if (meta.unit, meta.modality) != (unit.name, held.name):
        what = f"it holds {meta.modality} of {meta.unit}: renamed, or written over"
        yield Fault("misplaced", read.path, what, MAKE_ANEW)
    elif meta.generation != held.generation:
        what = f"it is of the generation {meta.generation}, not of that of its folder: moved, or written over"
        yield Fault("misplaced", read.path, what, MAKE_ANEW)


def _contents(read: _Read, carried: str, deep: bool) -> Iterator[Fault]:
    shard, card = read.shard, read.held.card
    if rows_digest(shard.rows.keys, shard.rows.views) != carried:
        what = "its rows aren't those that it was sealed with: reordered or edited"
        yield Fault("contradiction", read.path, what, MAKE_ANEW)
    elif shard.rows != RowKeys.of(read.keys, read.per_sample):
        rows = f"the {read.per_sample} views of each sample" if read.per_sample > 1 else "one for each sample"
        what = f"its rows aren't {rows}"
        yield Fault("contradiction", read.path, what, MAKE_ANEW)
    elif isinstance(shard, TokenShard):
        yield from _token_faults(read.path, shard, card)
    elif deep:
        yield from _label_faults(read.path, shard, card)


def _token_faults(path: str, shard: TokenShard, card: ModalityCard) -> Iterator[Fault]:
    """Types, lengths and ranges; the first row that is wrong stands for all."""
    spec = card.tokens.spec if card.tokens else None
    if spec is None:
        what = "it holds tokens, and the manifest has no fitted tokenizer for them"
        yield Fault("contradiction", path, what, "put back a copy of the manifest")
        return
    for key, view, ids in zip(shard.rows.keys, shard.rows.views, shard.tokens, strict=True):
        if ids is None:
            continue
        problem = ""
        if ids.dtype != spec.dtype:
            problem = f"tokens are {ids.dtype}, not {spec.dtype}"
        elif len(ids) > spec.max_length or spec.length not in (None, len(ids)):
            problem = f"{len(ids)} tokens where the manifest says {spec.length or f'at most {spec.max_length}'}"
        elif len(ids) and int(ids.max()) >= spec.vocabulary:
            problem = f"token id {int(ids.max())} where the vocabulary has {spec.vocabulary}"
        if problem:
            yield Fault("contradiction", path, f"{key!r}, view {view}: {problem}", MAKE_ANEW)
            return


def _label_faults(path: str, shard: LabelShard, card: ModalityCard) -> Iterator[Fault]:
    kind = card.label_kind
    for key, view, label in zip(shard.rows.keys, shard.rows.views, shard.labels, strict=True):
        try:
            if label is not None:
                kind.check(kind.decode(label))
        except Exception as error:  # what a decoder raises for bad bytes is its own affair
            what = f"{key!r}, view {view}: no {kind.name} label ({type(error).__name__}: {error})"
            yield Fault("contradiction", path, what, MAKE_ANEW)
            return


def _check_together(store: Store, holding: Holding, good: Sequence[_Read], found: Findings) -> None:
    """The unit's shards against each other, against the unit's name, and against the ledgers that they refer to."""
    if not good:
        return
    keys = _usual([read.keys for read in good])
    reference = next(read for read in good if read.keys == keys)
    found.keys = list(keys)
    for read in good:
        if read.keys != keys:
            found.faults.append(Fault("contradiction", read.path, _difference(read, reference), MAKE_ANEW))
    if len(keys) != holding.unit.count:
        what = f"it holds {len(keys)} samples, and its name says {holding.unit.count}"
        found.faults.append(Fault("misplaced", reference.path, what, MAKE_ANEW))
    found.faults += _rejection_faults(store, holding, good)
    for read in good:
        found.faults += _ledger_faults(store, holding.unit, read)


def _difference(read: _Read, reference: _Read) -> str:
    pairs = zip(read.keys, reference.keys, strict=False)
    at = next((at for at, (one, other) in enumerate(pairs) if one != other), None)
    if at is None:
        return f"it holds {len(read.keys)} samples, and {reference.path} holds {len(reference.keys)}"
    return f"misaligned with {reference.path}: sample {at} is {read.keys[at]!r} here and {reference.keys[at]!r} there"


def _rejection_faults(store: Store, holding: Holding, good: Sequence[_Read]) -> Iterator[Fault]:
    """What the corpus reader refused: the same for all modalities, and in the ledger."""
    digest = _usual([read.shard.meta.rejected for read in good])
    for read in good:
        if read.shard.meta.rejected != digest:
            what = "it says otherwise than the unit's other shards what the corpus reader refused"
            yield Fault("contradiction", read.path, what, MAKE_ANEW)
    if digest:
        read = next(read for read in good if read.shard.meta.rejected == digest)
        path = ledger_path(CORPUS, read.held.card.corpus_generation, holding.unit.name, digest)
        lines = _read_ledger(store, path, digest, read.path, CORPUS, holding.unit)
        yield from (line for line in lines if isinstance(line, Fault))


def _ledger_faults(store: Store, unit: Unit, read: _Read) -> Iterator[Fault]:
    meta = read.shard.meta
    if not meta.ledger:
        return
    path = ledger_path(meta.modality, meta.generation, read.held.stem, meta.ledger)
    rows = _presence(read)
    for failure in _read_ledger(store, path, meta.ledger, read.path, meta.modality, unit):
        if isinstance(failure, Fault):
            yield failure
            continue
        present = rows.get(failure.key)
        if present is None:
            what = f"it lists {failure.key!r}, which its unit doesn't hold"
            yield Fault("contradiction", path, what, _anew(path, read.path))
        elif not failure.is_note and any(there for view, there in present.items() if failure.view in (None, view)):
            what = f"it says that {failure.key!r} failed, and {read.path} has a value for it"
            yield Fault("contradiction", path, what, _anew(path, read.path))


def _presence(read: _Read) -> dict[str, dict[int, bool]]:
    """By key and view, whether the row has a value."""
    shard, found = read.shard, {}
    values: Sequence[Any] = shard.tokens if isinstance(shard, TokenShard) else shard.labels
    for key, view, value in zip(shard.rows.keys, shard.rows.views, values, strict=True):
        found.setdefault(key, {})[view] = value is not None
    return found


def _read_ledger(store: Store, path: str, digest: str, shard: str, name: str, unit: Unit) -> Iterator[Fault | Failure]:
    """The lines of a ledger whose SHA-256 is `digest`, or what is wrong with it. shard: which refers to it."""
    try:
        data = store.read(path)
    except FileNotFoundError:
        yield Fault("missing", path, f"{shard} refers to it", _anew(shard))
        return
    if hashlib.sha256(data).hexdigest() != digest:
        yield Fault("damaged", path, f"its bytes aren't those that {shard} refers to", _anew(path, shard))
        return
    try:
        for number, failure in enumerate(read_ledger(data), 1):
            if (failure.modality, failure.unit) != (name, unit.name):
                yield Fault("contradiction", path, f"line {number}: it is about another unit", _anew(path, shard))
                return
            yield failure
    except BrokenLedgerError as error:
        yield Fault("contradiction", path, str(error), _anew(path, shard))


def _anew(*paths: str) -> str:
    return f"delete {' and '.join(paths)} and run the recipe again, which makes them anew"


def _usual(values: Sequence[T]) -> T:
    """The most frequent value; the first of several such."""
    return Counter(values).most_common(1)[0][0]


def _carried_rows(data: bytes, unit: Unit) -> str:
    """The digest of a unit's rows that a shard was sealed with."""
    pairs = read_pairs(io.BytesIO(data), TOKENS if data[:4] == b"PAR1" else LABELS)
    return next((part.digest for part in parts_of(pairs) if part.unit == unit.name), pairs.get("tokenloom.rows", ""))


def key_hashes(keys: Sequence[str]) -> np.ndarray:
    """64-bit hashes, uint64 (keys,): equal for equal keys on every machine."""
    joined = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(joined, dtype="<u8")
