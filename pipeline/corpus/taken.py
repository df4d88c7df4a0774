"""What a dataset has taken up of a corpus: files by listings, each written once, and the shards that they come to.

A tar or a Parquet file is a shard. Loose images make shards by their folder and their listing, so that an image that
comes later, in a listing of its own, leaves the shards that there are as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..storage.errors import redact
from .folder import Picture, pictures_by_folder
from .formats import LINES, Format, compression_of, tables_of
from .listing import way
from .samples import CorpusError
from .units import shard_id

_MOST_PICTURES = 4096
"""Images of one shard: as many are read in one go, and made anew where one of them changes."""


@dataclass(frozen=True)
class Shard:
    """A part of a corpus that is read in one go: a tar, a Parquet file, or images of one folder.

    root: URL of a folder, that may hold credentials: print `url` instead. path: relative to it. size: bytes.
    files: of loose images, the names of all that belongs to them, with bytes. doubled: the names of those whose keys
    other images have, with the paths of these. tables: paths, with bytes, of those that hold fields of the images, the
    nearest last.
    """

    id: str
    root: str
    path: str
    format: Format
    size: int
    files: Sequence[tuple[str, int]] = ()
    doubled: Sequence[tuple[str, str]] = ()
    tables: Sequence[tuple[str, int]] = ()

    @property
    def url(self) -> str:
        return redact(f"{self.root}/{self.path}".rstrip("/"))


def is_compressed(shard: Shard) -> bool:
    """Whether it can be read from its beginning alone."""
    return shard.format in LINES and compression_of(shard.path) is not None


@dataclass(frozen=True)
class Listing:
    """Files that were taken up together: bytes by path, as of `Found`. doubled: those images whose keys other images
    had, with the paths of these."""

    format: Format
    files: Mapping[str, int]
    doubled: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """A line for the format, and one for each file."""
        lines: list[object] = [{"format": self.format}]
        for path, size in sorted(self.files.items()):
            lines.append([path, size, self.doubled[path]] if path in self.doubled else [path, size])
        return "".join(f"{json.dumps(line)}\n" for line in lines).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Listing:
        head, *lines = map(json.loads, data.splitlines())
        doubled = {line[0]: line[2] for line in lines if len(line) > 2}
        return cls(head["format"], {line[0]: line[1] for line in lines}, doubled)

    @property
    def digest(self) -> str:
        """The SHA-256 of its bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


@dataclass(frozen=True)
class Taken:
    """The listings, oldest first, and the ids of those of their shards that count no more."""

    listings: tuple[Listing, ...] = ()
    retired: frozenset[str] = frozenset()

    def shards(self, root: str, image: str | None) -> list[Shard]:
        """The shards that count, in order. root: as of `Found`. image: the extension of loose images, None for any.

        Raises CorpusError where two files would have one id.
        """
        shards: dict[str, Shard] = {}
        for listing in self.listings:
            for shard in shards_of(listing, root, image):
                held = shards.setdefault(shard.id, shard)
                if held.url != shard.url:
                    raise CorpusError(f"the shards {held.url} and {shard.url} have one id: rename either")
        counting = (shard for shard in shards.values() if shard.id not in self.retired)
        return sorted(counting, key=lambda shard: (shard.root, shard.path, shard.files[:1]))


def shards_of(listing: Listing, root: str, image: str | None) -> Iterator[Shard]:
    """The shards of one listing."""
    if listing.format != "folder":
        for path, size in listing.files.items():
            yield Shard(shard_id(path, size), *placed(root, path), listing.format, size)
        return
    for folder, found in pictures_by_folder(listing.files, image):
        for start in range(0, len(found), _MOST_PICTURES):
            tables = tuple((path, listing.files[path]) for path in tables_of(folder, listing.files))
            yield _folder_shard(root, folder, found[start : start + _MOST_PICTURES], listing.doubled, tables)


def files_of(shard: Shard, root: str) -> dict[str, int]:
    """The files of a shard: bytes by path, as of `Found`."""
    if shard.format != "folder":
        return {way(root, shard.root) + shard.path: shard.size}
    folder = way(root, f"{shard.root}/{shard.path}" if shard.path else shard.root)
    tables = {way(root, shard.root) + path: size for path, size in shard.tables}
    return {**{f"{folder}{name}": size for name, size in shard.files}, **tables}


def placed(root: str, path: str) -> tuple[str, str]:
    """The folder below which a path lies, and its way from there: itself unless it leads out of the root."""
    while path.startswith("../"):
        root, path = root.rpartition("/")[0], path[3:]
    return root, path


def _folder_shard(
    root: str, folder: str, found: Sequence[Picture], doubled: Mapping[str, str], tables: Sequence[tuple[str, int]]
) -> Shard:
    """folder: with a slash at its end, unless it is the root."""
    files = tuple(dict.fromkeys((entry.name, entry.size) for picture in found for entry in picture.files))
    names = [picture.image.name for picture in found]
    others = tuple((name, doubled[folder + name]) for name in names if folder + name in doubled)
    told = hashlib.sha256(json.dumps([files, others, *([tables] if tables else [])]).encode()).hexdigest()[:16]
    size = sum(picture.size for picture in found)
    where, path = placed(root, folder)
    id = shard_id(f"{told}/{folder.rstrip('/')}", size)
    beside = tuple((placed(root, path)[1], size) for path, size in tables)
    return Shard(id, where, path.rstrip("/"), "folder", size, files, others, beside)
