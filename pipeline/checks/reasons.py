"""What failed, put together by reason: as many groups as a person reads, however many labels there are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

_MOST = 100
"""Groups that are told apart; what fails otherwise is counted together, by modality."""
_LONGEST = 300
_NUMBERS = re.compile(r"\d+")
_OTHER = "other reasons"


@dataclass(frozen=True)
class Group:
    """Labels of a modality that failed alike, and how many. reason: the first one's, in which other numbers and another
    key make no other reason; key: of its sample."""

    modality: str
    error: str
    reason: str
    key: str
    count: int


class Reasons:
    """Numbers the reasons that it meets, up to a bound."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str, str], int] = {}
        self._groups: list[Group] = []

    def number(self, modality: str, error: str, reason: str, key: str) -> int:
        """That of the group to which the failure belongs."""
        reason = reason[:_LONGEST]
        alike = (modality, error, _NUMBERS.sub("0", reason.replace(key, "") if key else reason))
        if alike not in self._numbers and len(self._numbers) >= _MOST:
            alike, error, reason, key = (modality, "", _OTHER), "", _OTHER, ""
        if alike not in self._numbers:
            self._numbers[alike] = len(self._groups)
            self._groups.append(Group(modality, error, reason, key, 0))
        return self._numbers[alike]

    def groups(self, counts: Mapping[int, int]) -> list[Group]:
        """Those of which there are some, the largest first. counts: labels, by the number of their group."""
        found = (replace(self._groups[number], count=count) for number, count in counts.items() if count)
        return sorted(found, key=lambda group: (-group.count, group.modality, group.reason))


class ReasonCounts:
    """Counts labels that failed, by reason."""

    def __init__(self) -> None:
        self._reasons = Reasons()
        self._counts: dict[int, int] = {}

    def add(self, groups: Iterable[Group]) -> None:
        for one in groups:
            number = self._reasons.number(one.modality, one.error, one.reason, one.key)
            self._counts[number] = self._counts.get(number, 0) + one.count

    def groups(self) -> list[Group]:
        """As `Reasons.groups`."""
        return self._reasons.groups(self._counts)
