"""Ledgers: the quarantine's files, a line for each failed label."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass


class BrokenLedgerError(ValueError):
    """A ledger with a line that isn't what was written; the message says which."""


@dataclass(frozen=True)
class Failure:
    """One line of the quarantine: which sample failed to get which modality, and why.

    view: of the sample; None for all of it.
    """

    key: str
    modality: str
    reason: str
    error: str
    unit: str
    view: int | None = None


def write_ledger(failures: Iterable[Failure]) -> bytes:
    """A ledger's bytes; none where nothing failed."""
    lines = (json.dumps(asdict(failure), ensure_ascii=False) for failure in failures)
    return b"".join(line.encode("utf-8", "backslashreplace") + b"\n" for line in lines)


def digest_of(ledger: bytes) -> str:
    """The SHA-256 by which shards refer to their ledger; "" where nothing failed."""
    return hashlib.sha256(ledger).hexdigest() if ledger else ""


def read_ledger(data: bytes) -> Iterator[Failure]:
    """The failures in a ledger's bytes. Raises BrokenLedgerError at a line that can't be read."""
    for number, line in enumerate(data.splitlines(), 1):
        try:
            yield Failure(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise BrokenLedgerError(f"line {number}: it can't be read ({error})") from None
