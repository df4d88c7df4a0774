"""From the URLs of a recipe to the shards of a corpus, by listings alone."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..storage.errors import redact
from ..storage.store import Entry, Store, absolute_url
from .folder import folder_identity, pictures
from .samples import CorpusError
from .units import shard_id

Format = Literal["tar", "parquet", "folder"]

_FORMATS: dict[str, Format] = {"tar": "tar", "parquet": "parquet", "pq": "parquet"}
_COMPRESSED_TAR = re.compile(r"(?i)\.(tar\.\w+|tgz|tbz2?|txz|tzst)$")
_MAGIC = re.compile(r"[*?\[]")
_FEW = 4


@dataclass(frozen=True)
class Shard:
    """A part of a corpus that is read in one go: a tar, a Parquet file, or a folder with images directly in it.

    root: URL of the corpus' root, that may hold credentials: print `url` instead. path: relative to it. size: bytes.
    """

    id: str
    root: str
    path: str
    format: Format
    size: int

    @property
    def url(self) -> str:
        return redact(f"{self.root}/{self.path}".rstrip("/"))


@dataclass(frozen=True)
class _Found:
    """What one URL stands for. base: its folder; files: relative to that; named: whether it is one file's own URL."""

    url: str
    base: str
    files: list[Entry]
    named: bool = False


def find_shards(
    urls: Iterable[str], format: Format | None, image: str | None, options: Mapping[str, Any]
) -> list[Shard]:
    """The shards that the URLs stand for, sorted by path. Raises CorpusError when one stands for nothing.

    The corpus' root is the innermost folder that holds all of them: ids and keys are relative to it, so that they
    stay when the corpus moves as a whole.
    """
    found = [match for url in urls for match in _resolve(url, options)]
    root = _common_folder([match.base for match in found])
    files: dict[str, Entry] = {}
    named: set[str] = set()
    for match in found:
        prefix = match.base[len(root) :].lstrip("/")
        for entry in match.files:
            path = f"{prefix}/{entry.name}" if prefix else entry.name
            files[path] = entry._replace(name=path)
            named.update([path] if match.named else [])
    shown = ", ".join(redact(url) for url in urls)
    if format in (None, "tar"):
        _refuse_compressed(files, shown)
    format = format or _guess_format(files, shown)
    if format == "folder":
        shards = _folder_shards(root, files, image)
    else:
        shards = [
            Shard(shard_id(path, entry.size), root, path, format, entry.size)
            for path, entry in sorted(files.items())
            if _format_of(path) == format or path in named
        ]
    if not shards:
        wanted = f".{image} images" if image and format == "folder" else "images" if format == "folder" else format
        examples = ", ".join(sorted(files)[:3])
        raise CorpusError(f"{shown} holds no {wanted} but {len(files):,} other files, such as {examples}")
    return shards


def _folder_shards(root: str, files: Mapping[str, Entry], image: str | None) -> list[Shard]:
    by_folder: defaultdict[str, list[Entry]] = defaultdict(list)
    for path, entry in files.items():
        folder, _, name = path.rpartition("/")
        by_folder[folder].append(entry._replace(name=name))
    shards = []
    for folder, entries in sorted(by_folder.items()):
        if found := pictures(entries, image):
            digest, size = folder_identity(found)
            shards.append(Shard(folder_shard_id(folder, digest, size), root, folder, "folder", size))
    return shards


def folder_shard_id(folder: str, digest: str, size: int) -> str:
    """The id of a folder's shard, in which every file has a part: an added image makes it another shard."""
    return shard_id(f"{digest}/{folder}", size)


def _resolve(url: str, options: Mapping[str, Any]) -> Iterator[_Found]:
    """What a URL stands for, braces first: {000..123} and {a,b} name files that must be there, * and ? look."""
    from braceexpand import braceexpand

    address = absolute_url(url)
    literal = "://" not in address and Path(address).exists()
    try:
        expanded = [address] if literal else list(braceexpand(address))
    except ValueError:
        raise CorpusError(f"{redact(url)}: there is a {{ without its }}, or the other way round") from None
    by_parent: defaultdict[str, list[str]] = defaultdict(list)
    for one in expanded:
        parent, _, name = one.rpartition("/")
        if literal or not _MAGIC.search(one):
            by_parent[parent].append(name)
    missing: list[str] = []
    for parent, names in by_parent.items():
        yield from _named(parent, names, options, missing)
    if missing:
        raise CorpusError(_nothing(missing[0], options, len(missing), len(expanded)))
    for pattern in expanded:
        if not literal and _MAGIC.search(pattern):
            yield _matching(pattern, options)


def _named(parent: str, names: list[str], options: Mapping[str, Any], missing: list[str]) -> Iterator[_Found]:
    """The files and folders of these names; what is neither is added to `missing`. Many cost one listing."""
    whole_bucket = parent.endswith(":/")
    store = Store(parent or "/", options)
    if whole_bucket:
        sizes = {}
    elif len(names) > _FEW:
        sizes = {entry.name: entry.size for entry in store.list(recursive=False)}
    else:
        sizes = {name: store.size(name) for name in names if name and store.exists(name)}
    for name in names:
        url = f"{parent}/{name}"
        if name in sizes:
            yield _Found(url, parent, [Entry(name, sizes[name], 0.0)], named=True)
        elif below := _visible(Store(url, options).list()):
            yield _Found(url, url, below)
        else:
            missing.append(url)


def _visible(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that aren't hidden: no .DS_Store, no ._photo.jpg, no .ipynb_checkpoints/."""
    return [entry for entry in entries if not entry.name.startswith(".") and "/." not in entry.name]


def _matching(pattern: str, options: Mapping[str, Any]) -> _Found:
    """The files that a pattern matches, and all files below folders that it matches."""
    from fsspec.utils import glob_translate

    parts = pattern.split("/")
    fixed = next(index for index, part in enumerate(parts) if _MAGIC.search(part))
    base, rest = "/".join(parts[:fixed]), parts[fixed:]
    names_files = len(rest) == 1 and _format_of(rest[0]) is not None
    matches = re.compile(glob_translate("/".join(rest))).match
    listed = _visible(Store(base or "/", options).list(recursive=not names_files))
    files = [entry for entry in listed if any(matches(part) for part in _ancestors(entry.name))]
    if not files:
        raise CorpusError(_nothing(pattern, options))
    return _Found(pattern, base, files)


def _ancestors(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


def _format_of(path: str) -> Format | None:
    return _FORMATS.get(path.rsplit("/", 1)[-1].rpartition(".")[2].lower())


def _refuse_compressed(files: Iterable[str], shown: str) -> None:
    for path in files:
        if _COMPRESSED_TAR.search(path):
            raise CorpusError(
                f"{shown}: {path} is a compressed tar, and those can't be read from their middle, as resuming needs. "
                f"Decompress it (images hardly shrink), or name only the other files"
            )


def _guess_format(files: Iterable[str], shown: str) -> Format:
    formats: set[Format] = {found for path in files if (found := _format_of(path))}
    if len(formats) > 1:
        raise CorpusError(
            f"{shown} holds both tar and Parquet files. Write `corpus: {{url: ..., format: tar}}` or parquet"
        )
    return formats.pop() if formats else "folder"


def _common_folder(bases: list[str]) -> str:
    common = bases[0].split("/")
    for base in bases[1:]:
        parts = base.split("/")
        length = next((i for i, (a, b) in enumerate(zip(common, parts, strict=False)) if a != b), None)
        common = common[: min(len(common), len(parts)) if length is None else length]
    root = "/".join(common)
    if "://" in bases[0] and (len(common) < 3 or (len(common) == 3 and bases[0].startswith("s3") and not common[2])):
        shown = ", ".join(sorted({redact(base) for base in bases})[:3])
        raise CorpusError(
            f"the URLs of a corpus must share a bucket: {shown}. Make a dataset of each, and mix in training"
        )
    return root


def _nothing(url: str, options: Mapping[str, Any], missing: int = 1, of: int = 1) -> str:
    """The message for a URL that stands for nothing: what there is at the nearest place that exists."""
    parts = url.split("/")
    message = f"{redact(url)}: nothing is there"
    if missing > 1 or of > 1:
        message += f", one of {missing:,} missing of {of:,}"
    lowest = 3 if "://" in url else 1
    for length in range(len(parts) - 1, lowest - 1, -1):
        folder = "/".join(parts[:length]) or "/"
        children = [] if _MAGIC.search(folder) else Store(folder, options).children()
        if children := [name for name in children if not name.startswith(".")]:
            close = difflib.get_close_matches(parts[length], children, 3, 0.5) or children[:3]
            names = ", ".join(close)
            return f"{message}. {redact(folder)} exists and holds {len(children):,} names, such as {names}"
    return message
