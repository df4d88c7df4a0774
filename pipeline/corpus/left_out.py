"""What of a corpus isn't taken: counted, the first of it named, with the way to take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from .names import clean_key

LEFT_OUT = "LeftOut"
"""The finding of a ledger's line that tells of what isn't taken, and of no failure."""

_FEW = 3


def few(names: Sequence[str], count: int | None = None) -> str:
    """The first of the names, and how many more of `count` (by default: all names) there are."""
    more = (len(names) if count is None else count) - len(names[:_FEW])
    return ", ".join(names[:_FEW]) + (f" and {more:,} more" if more else "")


class Why(Enum):
    """Why something is left out: what it is, one and several, and the way to take it."""

    TAR = "tar", "tars", "`format: tar` under `corpus` takes tars alone"
    PARQUET = "Parquet file", "Parquet files", "`format: parquet` under `corpus` takes Parquet alone"
    IMAGE = "image", "images", "`format: folder` under `corpus` takes images alone"
    COMPRESSED_TAR = "compressed tar", "compressed tars", "decompress it, and write `format: tar` under `corpus`"
    BOOKKEEPING = "table or count of img2dataset", "tables and counts of img2dataset", "what they tell of is taken"
    OTHER_IMAGE = "image with another ending", "images with other endings", "`image: ENDING` under `corpus` chooses one"
    TEXT = "text of no image", "texts of no image", "name it as its image, with .txt or .json for the ending"
    UNREAD_IMAGE = "image of a format that is not read", "images of formats that are not read", "convert it to JPEG"
    FILE = "other file", "other files", "what is an image needs the ending of its format"
    NO_TEXTS = (
        "file whose name is no text's",
        "files whose names are no texts'",
        "JSON lines, Parquet and plain text are read: .jsonl or .json, .parquet, .txt, with .gz or .zst behind it",
    )
    BLANK_LINE = "blank line", "blank lines", ""
    NO_FILE = "link to nothing, pipe or device", "links to nothing, pipes or devices", "put the file itself there"
    HIDDEN = "hidden file", "hidden files", "no image has a name, or lies in a folder, that begins with a dot"
    UNREADABLE_NAME = "name with an empty part, `.` or `..`", "names with an empty part, `.` or `..`", "rename it"
    FURTHER_IMAGE = (
        "further image of a sample",
        "further images of samples",
        "`split: last` under `corpus` makes each a sample of its own, `image: ENDING` takes another one",
    )
    NOT_TEXT = "file beside an image that is no text", "files beside images that are no texts", ""
    NO_ENDING = "file without an ending", "files without an ending", "name it as its image, with .txt or .json"
    COLUMN = "column", "columns", "JSON has no such values, or the image is in another one: `image: COLUMN` chooses it"
    NOT_DOWNLOADED = "image that was not downloaded", "images that were not downloaded", ""
    ROW = "row of a table", "rows of tables", "name an image at or below the table's folder under `file_name`"


@dataclass
class LeftOut:
    """Things left out for one reason. names: the first of them; of files the first with each ending."""

    why: Why
    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.names) < _FEW:
            self.names.append(clean_key(name))

    def __str__(self) -> str:
        one, several, way_out = self.why.value
        what = f"{self.count:,} {one if self.count == 1 else several} left out: {few(self.names, self.count)}"
        return f"{what} ({way_out})" if way_out else what


class Account:
    """What is left out, as it is found."""

    def __init__(self) -> None:
        self._found: dict[Why, LeftOut] = {}
        self._endings: set[str] = set()

    def add(self, why: Why, name: str) -> None:
        left = self._found.setdefault(why, LeftOut(why))
        ending = name.rsplit("/", 1)[-1].rpartition(".")[2]
        if why is Why.FILE and ending in self._endings:
            left.count += 1
            return
        self._endings.add(ending)
        left.add(name)

    def include(self, other: Account) -> None:
        """Adds what another one holds."""
        for why, theirs in other._found.items():
            left = self._found.setdefault(why, LeftOut(why))
            left.count += theirs.count
            left.names = [*left.names, *theirs.names][:_FEW]

    def told(self) -> list[str]:
        """A line for each reason."""
        return [str(left) for left in self._found.values()]
