"""What shards say of themselves beside their rows: a unit's own, and merged ones of the units in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

CHECKSUM = "tokenloom.sha256"
BLANK = b"0" * 64
_PARTS = "tokenloom.parts"


class BrokenShardError(ValueError):
    """A shard whose bytes aren't what was written; the message says what is wrong."""


@dataclass(frozen=True)
class ShardMeta:
    """What a shard says of itself.

    generation: of the labels or tokens that it holds. ledger: SHA-256 of the quarantine file that tells why values are
    missing, "" when nothing failed. rejected: the same for the samples that the corpus reader refused.
    """

    unit: str
    modality: str
    generation: str
    ledger: str = ""
    rejected: str = ""

    def pairs(self, keys: Sequence[str], views: Sequence[int]) -> dict[str, str]:
        return {
            "tokenloom.unit": self.unit,
            "tokenloom.modality": self.modality,
            "tokenloom.generation": self.generation,
            "tokenloom.ledger": self.ledger,
            "tokenloom.rejected": self.rejected,
            "tokenloom.rows": rows_digest(keys, views),
            CHECKSUM: BLANK.decode(),
        }

    @classmethod
    def from_pairs(cls, pairs: Mapping[str, str]) -> ShardMeta:
        try:
            names = ("unit", "modality", "generation", "ledger", "rejected")
            return cls(*(pairs[f"tokenloom.{name}"] for name in names))
        except KeyError as error:
            raise BrokenShardError(f"it has no {error.args[0]!r}: not a shard of tokenloom") from None


@dataclass(frozen=True)
class Part:
    """What a merged shard says of one of its units. stem: with its revision; ledger, rejected: as of ShardMeta; rows:
    how many; digest: theirs, as of `rows_digest`; size: bytes of its members in a tar, 0 in Parquet, where parts that
    have rows are row groups; content: as of `content_digest`, by which a part is checked that is read alone."""

    unit: str
    stem: str
    ledger: str
    rejected: str
    rows: int
    digest: str
    size: int = 0
    content: str = ""

    def check(self, digest: str) -> None:
        """Raises BrokenShardError where the content has another digest than when it was merged."""
        if self.content and digest != self.content:
            raise BrokenShardError(f"what it holds of {self.unit} isn't what was written")


def merged_pairs(parts: Sequence[Part], modality: str, generation: str) -> dict[str, str]:
    """What a merged shard says of itself; first its checksum, which is looked for in a tar's head."""
    return {
        CHECKSUM: BLANK.decode(),
        "tokenloom.modality": modality,
        "tokenloom.generation": generation,
        _PARTS: json.dumps([astuple(part) for part in parts]),
    }


def parts_of(pairs: Mapping[str, str]) -> list[Part]:
    """The parts of a merged shard; none for a unit's own."""
    try:
        return [Part(*told) for told in json.loads(pairs.get(_PARTS, "[]"))]
    except (ValueError, TypeError):
        raise BrokenShardError("it doesn't say which units it holds") from None


def meta_of(pairs: Mapping[str, str], part: Part | None) -> ShardMeta:
    """What a shard says of a unit. part: None for the unit's own shard."""
    if part is None:
        return ShardMeta.from_pairs(pairs)
    told = {"tokenloom.unit": part.unit, "tokenloom.ledger": part.ledger, "tokenloom.rejected": part.rejected}
    return ShardMeta.from_pairs({**pairs, **told})


def place_of(pairs: Mapping[str, str], unit: str) -> int | None:
    """Which part of a merged shard is the unit's; None for a unit's own shard."""
    parts = parts_of(pairs)
    if not parts:
        return None
    place = next((place for place, part in enumerate(parts) if part.unit == unit), None)
    if place is None:
        raise BrokenShardError(f"it holds {len(parts)} units, and {unit} isn't among them")
    return place


def content_digest(unit: str, rows: str, *content: bytes) -> str:
    """SHA-256 over what a part of a merged shard holds, and whose it is. rows: as of `rows_digest`."""
    digest = hashlib.sha256(f"{unit};{rows};".encode())
    for piece in content:
        digest.update(len(piece).to_bytes(8, "big"))
        digest.update(piece)
    return digest.hexdigest()


def rows_digest(keys: Sequence[str], views: Sequence[int]) -> str:
    """SHA-256 over keys and views in order: equal in all modalities of a unit, or they are misaligned."""
    digest = hashlib.sha256()
    for key, view in zip(keys, views, strict=True):
        digest.update(f"{len(key.encode())}:{key}:{view};".encode())
    return digest.hexdigest()
