"""From the URLs of a recipe to the files of a corpus, by listings alone."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..storage.errors import redact, without_credentials
from ..storage.store import Entry, Store, absolute_url
from .folder import pictures_by_folder
from .samples import CorpusError

Format = Literal["tar", "parquet", "folder"]

_FORMATS: dict[str, Format] = {"tar": "tar", "parquet": "parquet", "pq": "parquet"}
_COMPRESSED_TAR = re.compile(r"(?i)\.(tar\.\w+|tgz|tbz2?|txz|tzst)$")
_MAGIC = re.compile(r"[*?\[]")
_FEW = 4


@dataclass(frozen=True)
class Found:
    """The files that a corpus' URLs stand for, of one format.

    root: URL of the folder that paths are relative to, which may hold credentials. files: bytes by path; one that
    begins with `../` lies outside of the root.
    """

    root: str
    format: Format
    files: dict[str, int]


@dataclass(frozen=True)
class _Match:
    """What one URL stands for. base: its folder; files: relative to that; named: whether it is one file's own URL."""

    url: str
    base: str
    files: list[Entry]
    named: bool = False


def find_files(
    urls: Iterable[str], format: Format | None, image: str | None, options: Mapping[str, Any], known_root: str = ""
) -> Found:
    """The files that the URLs stand for. Raises CorpusError when one stands for nothing.

    The root is the innermost folder with all that the first URL stands for, so that paths, and with them keys and the
    shards' ids, stay as they are when URLs are added, and when the corpus moves as a whole. known_root: that which a
    dataset has had, without credentials; it stays the root for as long as any file lies below it.
    """
    by_url = [list(_resolve(url, options)) for url in urls]
    matches = [match for found in by_url for match in found]
    _refuse_two_places([match.base for match in matches])
    root = _known(matches, known_root) or _common_folder([match.base for match in by_url[0]])
    files: dict[str, int] = {}
    named: set[str] = set()
    ways = _Ways(root)
    for match in matches:
        for entry in match.files:
            folder, _, name = f"{match.base}/{entry.name}".rpartition("/")
            files[ways[folder] + name] = entry.size
            named.update([ways[folder] + name] if match.named else [])
    shown = ", ".join(redact(url) for url in urls)
    if format in (None, "tar"):
        _refuse_compressed(files, shown)
    format = format or _guess_format(files, shown)
    if format == "folder":
        by_folder = pictures_by_folder(files, image)
        wanted = [folder + entry.name for folder, found in by_folder for one in found for entry in one.files]
    else:
        wanted = [path for path in files if _format_of(path) == format or path in named]
    if not wanted:
        what = f".{image} images" if image and format == "folder" else "images" if format == "folder" else format
        examples = ", ".join(sorted(files)[:3])
        raise CorpusError(f"{shown} holds no {what} but {len(files):,} other files, such as {examples}")
    return Found(root, format, {path: files[path] for path in sorted(wanted)})


def _known(matches: Sequence[_Match], root: str) -> str | None:
    """The known root, with the credentials that the corpus is read with, if anything lies below it."""
    urls = (without_credentials(f"{match.base}/{entry.name}") for match in matches for entry in match.files)
    if not root or not any(url.startswith(f"{root}/") for url in urls):
        return None
    place = matches[0].base.split("/")[:3]
    return "/".join(place + root.split("/")[3:]) if "://" in root else root


def _common_folder(folders: Sequence[str]) -> str:
    first, *others = (folder.split("/") for folder in folders)
    return "/".join(first[: min((_shared(first, other) for other in others), default=len(first))])


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts two paths share from their beginning."""
    differing = (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


class _Ways(dict[str, str]):
    """What `way` gives for folders, found once for each."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self._root = root

    def __missing__(self, folder: str) -> str:
        return self.setdefault(folder, way(self._root, folder))


def way(root: str, folder: str) -> str:
    """The path from the root to a folder, with a slash at its end unless it is empty."""
    ours, theirs = root.split("/"), folder.split("/")
    shared = _shared(ours, theirs)
    return "".join(f"{part}/" for part in [".."] * (len(ours) - shared) + theirs[shared:])


def _resolve(url: str, options: Mapping[str, Any]) -> Iterator[_Match]:
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


def _named(parent: str, names: list[str], options: Mapping[str, Any], missing: list[str]) -> Iterator[_Match]:
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
            yield _Match(url, parent, [Entry(name, sizes[name], 0.0)], named=True)
        elif below := _visible(Store(url, options).list()):
            yield _Match(url, url, below)
        else:
            missing.append(url)


def _visible(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that aren't hidden: no .DS_Store, no ._photo.jpg, no .ipynb_checkpoints/."""
    return [entry for entry in entries if not entry.name.startswith(".") and "/." not in entry.name]


def _matching(pattern: str, options: Mapping[str, Any]) -> _Match:
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
    return _Match(pattern, base, files)


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


def _refuse_two_places(bases: Sequence[str]) -> None:
    """Raises CorpusError unless all folders lie on one file system, and in one bucket."""
    places = {"/".join(base.split("/")[:3]) if "://" in base else "" for base in bases}
    if len(places) > 1:
        shown = ", ".join(sorted({redact(base) for base in bases})[:3])
        raise CorpusError(
            f"the URLs of a corpus must share a bucket: {shown}. Make a dataset of each, and mix in training"
        )


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
