"""What each file of a corpus is, going by its name and by those beside it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from enum import Enum
from typing import Literal

from .samples import is_image

Format = Literal["tar", "parquet", "folder", "jsonl", "text"]

LINES = ("jsonl", "text")
"""The formats that have a text a line."""

TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Names of tables with a row for each image at or below their folder, as Hugging Face's `imagefolder` has them."""

_COMPRESSED_TAR = re.compile(r"(?i)\.(tar\.\w+|tgz|tbz2?|txz|tzst)$")
_STATS = "_stats.json"
_COMPRESSIONS = {"gz": "gzip", "zst": "zstd"}


class Sort(Enum):
    """What a file is. BOOKKEEPING: img2dataset's Parquet and `_stats.json` beside the shard that they tell of."""

    TAR = "tar"
    PARQUET = "parquet"
    IMAGE = "image"
    COMPRESSED_TAR = "compressed tar"
    TABLE = "table"
    BOOKKEEPING = "bookkeeping"
    JSON_LINES = "jsonl"
    PLAIN_TEXT = "text"
    OTHER = "other"


_BY_EXTENSION = {"tar": Sort.TAR, "parquet": Sort.PARQUET, "pq": Sort.PARQUET}
_OF_TEXTS = {
    "parquet": Sort.PARQUET,
    "pq": Sort.PARQUET,
    "jsonl": Sort.JSON_LINES,
    "ndjson": Sort.JSON_LINES,
    "json": Sort.JSON_LINES,
    "txt": Sort.PLAIN_TEXT,
}
"""In a corpus of texts: beside images, .txt and .json are what belongs to an image."""


def sort_of(path: str, image: str | None = None) -> Sort:
    """What a file is, going by its name alone. image: the extension that images have; by default any that they have."""
    stem, _, extension = path.rsplit("/", 1)[-1].rpartition(".")
    if _COMPRESSED_TAR.search(path):
        return Sort.COMPRESSED_TAR
    if stem and is_image(extension, image):
        return Sort.IMAGE
    return _BY_EXTENSION.get(extension.lower(), Sort.OTHER)


def sorts_of(paths: Collection[str], image: str | None) -> dict[str, Sort]:
    """What each file is, among the others."""
    found = {path: sort_of(path, image) for path in paths}
    illustrated = {folder for path, sort in found.items() if sort is Sort.IMAGE for folder in _folders(path)}
    shards = {path.rpartition(".")[0] for path, sort in found.items() if sort in (Sort.TAR, Sort.PARQUET)}
    for path, sort in found.items():
        folder, _, name = path.rpartition("/")
        if name in TABLES and folder in illustrated:
            found[path] = Sort.TABLE
        elif sort is Sort.PARQUET:
            stem = path.rpartition(".")[0]
            if found.get(f"{stem}.tar") is Sort.TAR or stem in illustrated:
                found[path] = Sort.BOOKKEEPING
        elif path.endswith(_STATS) and (path.removesuffix(_STATS) in shards | illustrated):
            found[path] = Sort.BOOKKEEPING
    return found


def _folders(path: str) -> Iterator[str]:
    """The folders that a file lies in, up to the root, "" ."""
    while path:
        path = path.rpartition("/")[0]
        yield path


def sort_among_texts(path: str) -> Sort:
    """What a file of a corpus of texts is, going by its name alone: OTHER for what holds none."""
    name = path.rpartition("/")[2]
    if compression_of(path):
        name = name.rpartition(".")[0]
    stem, _, extension = name.rpartition(".")
    found = _OF_TEXTS.get(extension.lower(), Sort.OTHER) if stem else Sort.OTHER
    return Sort.OTHER if found is Sort.PARQUET and compression_of(path) else found


def compression_of(path: str) -> str | None:
    """How a file of lines is compressed, as pyarrow calls it, going by its name; None for one that isn't."""
    return _COMPRESSIONS.get(path.rpartition(".")[2].lower())


def is_table(path: str) -> bool:
    return path.rpartition("/")[2] in TABLES


def tables_of(folder: str, files: Collection[str]) -> list[str]:
    """Which of the files are tables that tell of a folder's images: in it, or in folders that it lies in; nearest last.

    folder: with a slash at its end, unless it is the root.
    """
    found: list[str] = []
    while True:
        found += [path for name in reversed(TABLES) if (path := folder + name) in files]
        if not folder or folder.endswith("../"):
            return found[::-1]
        folder = folder[: folder.rstrip("/").rfind("/") + 1]
