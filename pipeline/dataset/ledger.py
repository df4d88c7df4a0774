"""Ledgers: the quarantine's files, a line for each failed label, and for each that was made without another that it
wants, since that failed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

MADE_WITHOUT = "MadeWithout"
"""The finding of a line that tells of no failure: of a label that was made without another."""


class BrokenLedgerError(ValueError):
    """A ledger with a line that isn't what was written; the message says which."""


@dataclass(frozen=True)
class Failure:
    """One line of the quarantine: which sample failed to get which modality, and why.

    view: of the sample; None for all of it. without: the modality whose label was lacking, as it had failed: once it is
    there, this one is made again. "" where there is none to wait for.
    """

    key: str
    modality: str
    reason: str
    error: str
    unit: str
    view: int | None = None
    without: str = ""

    @property
    def is_note(self) -> bool:
        """Whether it tells of no failure."""
        return self.error == MADE_WITHOUT


def write_ledger(failures: Iterable[Failure]) -> bytes:
    """A ledger's bytes; none where nothing failed."""
    lines = (json.dumps(_told(failure), ensure_ascii=False) for failure in failures)
    return b"".join(line.encode("utf-8", "backslashreplace") + b"\n" for line in lines)


def _told(failure: Failure) -> dict[str, Any]:
    told = {name: value for name, value in asdict(failure).items() if name != "without" or value}
    view = told.pop("view")
    return {**told, "view": view}


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
