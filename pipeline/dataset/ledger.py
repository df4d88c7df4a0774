"""Ledgers: the quarantine's files, a line for each failed label."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Failure:
    """One line of the quarantine: which sample failed to get which modality, and why."""

    key: str
    modality: str
    reason: str
    error: str
    unit: str
    view: int | None = None

    def to_line(self) -> bytes:
        return json.dumps(asdict(self), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"

    @classmethod
    def from_line(cls, line: bytes | str) -> Failure:
        return cls(**json.loads(line))
