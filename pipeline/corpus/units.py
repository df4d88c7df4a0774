"""Units: the unit of work and of commit, whose name says all that a resumed run must know.

A unit's name is the file name, less the extension, of its shard in every modality:

    photos-3f9c01ab52e7-000000000000-000000131072-00256
    \\_________________/ \\__________/ \\__________/ \\___/
          shard id           start         stop     samples

Start and stop are positions in the corpus shard (bytes in a tar, rows in Parquet, indices in a folder); the last unit
of a shard stops at `end`. So one listing of an output prefix tells which parts of which shards are done, where the
next unit begins, and how many samples there are, without opening one object.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_AT = r"\d{12}|[1-9]\d{12,}"
_NAME = re.compile(
    rf"(?P<shard>[\w-]+-[0-9a-f]{{12}})-(?P<start>{_AT})-(?P<stop>{_AT}|end)-(?P<count>\d{{5}})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Unit:
    """Consecutive samples of one corpus shard; `stop` is None for the last. Units sort by shard and position."""

    shard: str
    start: int
    stop: int | None
    count: int

    def __lt__(self, other: Unit) -> bool:
        return self.order() < other.order()

    def order(self) -> tuple[str, int, bool, int, int]:
        """What units sort by: as a key it is asked for once a unit, not twice a comparison."""
        return self.shard, self.start, self.stop is None, self.stop or 0, self.count

    @property
    def name(self) -> str:
        stop = "end" if self.stop is None else f"{self.stop:012d}"
        return f"{self.place}-{stop}-{self.count:05d}"

    @property
    def place(self) -> str:
        """Its shard and where it begins there: its name, less what is known of it only once it has been read."""
        return f"{self.shard}-{self.start:012d}"

    @classmethod
    def parse(cls, name: str) -> Unit | None:
        """The unit of that name; None for a name that isn't a unit's."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        stop = None if match["stop"] == "end" else int(match["stop"])
        return cls(match["shard"], int(match["start"]), stop, int(match["count"]))


class UnitNames(dict[str, "Unit | None"]):
    """Units by name, None for names that aren't a unit's: each is parsed once, and kept once, for many listings."""

    def __missing__(self, name: str) -> Unit | None:
        return self.setdefault(name, Unit.parse(name))  # one for all, also where two threads meet


def shard_of(name: str) -> str:
    """The corpus shard of the unit of that name; "" for a name that isn't a unit's."""
    unit = Unit.parse(name)
    return unit.shard if unit else ""


def shard_id(path: str, size: int) -> str:
    """The id of a corpus shard: a readable stem, and 12 hex digits that tell apart (path, size), even where
    a hundred thousand folders share one name.

    path: relative to the corpus' root, so that a corpus keeps its ids when it is copied elsewhere.
    """
    stem = re.sub(r"[^a-zA-Z0-9_]+", "-", path.rsplit("/", 1)[-1].split(".")[0]).strip("-")[:48] or "shard"
    digest = hashlib.sha256(f"{path}\n{size}".encode("utf-8", "surrogateescape")).hexdigest()
    return f"{stem}-{digest[:12]}"


def spread(items: Sequence[T], count: int | None) -> list[T]:
    """`count` of the items at even distances, in order, the first among them; all where `count` is None or larger."""
    count = len(items) if count is None else min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]
