"""From the URLs of a recipe to the shards of a corpus, by listings alone."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..storage.errors import redact
from ..storage.store import Entry, Store, absolute_url
from .folder import folder_identity, pictures
from .formats import TABLES, Format, Sort, sort_of, sorts_of
from .left_out import Account, Why
from .samples import CorpusError, is_image
from .units import shard_id

_HIDDEN = re.compile(r"(^|/)\.(?!\.?(/|$))")
_MAGIC = re.compile(r"[*?\[]")
_FEW = 4
_WHY = {sort: Why[sort.name] for sort in Sort if sort.name in Why.__members__}


@dataclass(frozen=True)
class Shard:
    """A part of a corpus that is read in one go: a tar, a Parquet file, or a folder with images directly in it.

    root: URL of the corpus' root, that may hold credentials: print `url` instead. path: relative to it. size: bytes.
    tables: paths of those with fields for a folder's images, the nearest last.
    """

    id: str
    root: str
    path: str
    format: Format
    size: int
    tables: Sequence[str] = ()

    @property
    def url(self) -> str:
        return redact(f"{self.root}/{self.path}".rstrip("/"))


@dataclass(frozen=True)
class Listing:
    """What a corpus' URLs stand for. left_out: what of it isn't taken, a line for each reason."""

    shards: list[Shard]
    left_out: list[str]


@dataclass(frozen=True)
class _Found:
    """What one URL stands for. base: its folder; files: relative to that; alone: those of them that are meant, and not
    a folder that they lie in; named: whether it is one file's own URL."""

    url: str
    base: str
    files: list[Entry]
    alone: Sequence[Entry] = ()
    named: bool = False


def list_corpus(urls: Sequence[str], format: Format | None, image: str | None, options: Mapping[str, Any]) -> Listing:
    """The shards that the URLs stand for, sorted by path. Raises CorpusError when one stands for nothing.

    The corpus' root is the innermost folder that holds all of them: ids and keys are relative to it, so that they
    stay when the corpus moves as a whole.
    """
    found = [match for url in urls for match in _resolve(url, options)]
    root = _common_folder([match.base for match in found])
    files: dict[str, Entry] = {}
    named: set[str] = set()
    account = Account()
    for match in found:
        prefix = match.base[len(root) :].lstrip("/")
        for entry in match.files:
            path = f"{prefix}/{entry.name}" if prefix else entry.name
            if not is_readable(path):
                account.add(Why.UNREADABLE_NAME, path)
                continue
            files[path] = entry._replace(name=path)
            named.update([path] if match.named else [])
    shown = ", ".join(redact(url) for url in urls)
    sorts = sorts_of(files, image) if format in (None, "folder") else {path: sort_of(path, image) for path in files}
    format = format or _guess_format(sorts, shown)
    if format == "folder":
        chosen = {f"{match.base}/{entry.name}"[len(root) :].lstrip("/") for match in found for entry in match.alone}
        asked = set(files)
        _add_texts(root, files, sorts, chosen, options)
        shards = _folder_shards(root, files, sorts, image, asked, account)
    else:
        if format == "tar":
            _refuse_compressed(sorts, shown)
        taken = [path for path in sorted(files) if sorts[path].value == format or path in named]
        shards = [Shard(shard_id(path, files[path].size), root, path, format, files[path].size) for path in taken]
        for path in sorted(files.keys() - set(taken)):
            account.add(_WHY.get(sorts[path], Why.FILE), path)
    if not shards:
        wanted = f".{image} images" if image and format == "folder" else "images" if format == "folder" else format
        examples = ", ".join(sorted(files)[:3])
        raise CorpusError(f"{shown} holds no {wanted} but {len(files):,} other files, such as {examples}")
    return Listing(shards, account.told())


def _add_texts(
    root: str, files: dict[str, Entry], sorts: dict[str, Sort], chosen: Collection[str], options: Mapping[str, Any]
) -> None:
    """Adds to the `files` what lies beside the images that were `chosen` one by one, or by their endings."""
    store = Store(root or "/", options)
    for folder in sorted({path.rpartition("/")[0] for path in chosen if sorts.get(path) is Sort.IMAGE}):
        beside = {entry.name: entry for entry in _visible(store.list(folder, recursive=False))}
        for name, sort in sorts_of(beside, None).items():
            path = f"{folder}/{name}" if folder else name
            if sort in (Sort.TABLE, Sort.OTHER) and path not in files:
                files[path], sorts[path] = beside[name]._replace(name=path), sort


def _folder_shards(
    root: str,
    files: Mapping[str, Entry],
    sorts: Mapping[str, Sort],
    image: str | None,
    asked: Collection[str],
    account: Account,
) -> list[Shard]:
    """asked: the files that the recipe names, and not those alone that lie beside them."""
    by_folder: defaultdict[str, list[Entry]] = defaultdict(list)
    for path, entry in files.items():
        folder, _, name = path.rpartition("/")
        by_folder[folder].append(entry._replace(name=name))
    shards = []
    for folder, entries in sorted(by_folder.items()):
        found = pictures(entries, image)
        tables = [f"{above}/{name}" if above else name for above in above_and(folder) for name in TABLES]
        tables = [path for path in tables if sorts.get(path) is Sort.TABLE] if found else []
        if found:
            digest, size = folder_identity(found, [files[path] for path in tables])
            shards.append(Shard(folder_shard_id(folder, digest, size), root, folder, "folder", size, tuple(tables)))
        taken = {entry.name for picture in found for entry in (picture.image, *picture.beside.values())}
        for name in sorted({entry.name for entry in entries} - taken):
            path = f"{folder}/{name}" if folder else name
            if path in asked and sorts[path] is not Sort.TABLE:
                account.add(_why_no_picture(path, sorts[path]), path)
    return shards


def _why_no_picture(path: str, sort: Sort) -> Why:
    extension = path.rpartition(".")[2].lower()
    if sort is Sort.OTHER and is_image(extension, None):
        return Why.OTHER_IMAGE
    return _WHY.get(sort, Why.TEXT if extension in ("txt", "json") else Why.FILE)


def folder_shard_id(folder: str, digest: str, size: int) -> str:
    """The id of a folder's shard, in which every file has a part: an added image makes it another shard."""
    return shard_id(f"{digest}/{folder}", size)


def _resolve(url: str, options: Mapping[str, Any]) -> Iterator[_Found]:
    """What a URL stands for: its names must be there, its patterns look."""
    names, patterns = _expanded(url, options)
    by_parent: defaultdict[str, list[str]] = defaultdict(list)
    for one in names:
        parent, _, name = one.rpartition("/")
        by_parent[parent].append(name)
    missing: list[str] = []
    for parent, children in by_parent.items():
        yield from _named(parent, children, options, missing)
    if missing:
        raise CorpusError(_nothing(missing[0], options, len(missing), len(names) + len(patterns)))
    for pattern in patterns:
        yield _matching(pattern, options)


@dataclass(frozen=True)
class _Pattern:
    """An address with * or ?: `rest` is what is looked for below the folder `base`, part by part."""

    base: str
    rest: tuple[str, ...]

    @property
    def address(self) -> str:
        return "/".join((self.base, *self.rest))

    @cached_property
    def matches(self) -> Callable[[str], object]:
        """Whether a path below the base is what the pattern means."""
        from fsspec.utils import glob_translate

        return re.compile(glob_translate("/".join(self.rest))).match


def _expanded(url: str, options: Mapping[str, Any]) -> tuple[list[str], list[_Pattern]]:
    """The addresses that a URL names, braces first ({000..123} and {a,b}), and those with * or ?, which look.

    A part in brackets is a pattern, too, unless there is something of that very name.
    """
    from braceexpand import braceexpand

    address = absolute_url(url)
    if "://" not in address and Path(address).exists():
        return [address], []
    names, patterns = [], []
    for one in braceexpand(address):
        parts = one.split("/")
        fixed = next((at for at in range(len(parts)) if _is_magic(parts, at, options)), None)
        if fixed is None:
            names.append(one)
        else:
            patterns.append(_Pattern("/".join(parts[:fixed]), tuple(parts[fixed:])))
    return names, patterns


def _is_magic(parts: Sequence[str], at: int, options: Mapping[str, Any]) -> bool:
    if "*" in parts[at] or "?" in parts[at]:
        return True
    if "[" not in parts[at]:
        return False
    above = Store("/".join(parts[:at]) or "/", options).children()
    return parts[at] not in above and f"{parts[at]}/" not in above


class Choice:
    """Which addresses the URLs of a corpus stand for, whether or not anything is there."""

    def __init__(self, urls: Iterable[str], options: Mapping[str, Any]) -> None:
        expanded = [_expanded(url, options) for url in urls]
        self._names = {name for names, _ in expanded for name in names}
        self._patterns = [pattern for _, patterns in expanded for pattern in patterns]

    def takes(self, address: str) -> bool:
        """Whether the file at that address, or all below the folder there, is meant."""
        if any(part in self._names for part in _ancestors(address)):
            return True
        return any(
            pattern.matches(part)
            for pattern in self._patterns
            if address.startswith(f"{pattern.base}/")
            for part in _ancestors(address[len(pattern.base) + 1 :])
        )


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
            files = [Entry(name, sizes[name], 0.0)]
            yield _Found(url, parent, files, files, named=True)
        elif below := _visible(Store(url, options).list()):
            yield _Found(url, url, below)
        else:
            missing.append(url)


def _visible(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that aren't hidden: no .DS_Store, no ._photo.jpg, no .ipynb_checkpoints/."""
    return [entry for entry in entries if not _HIDDEN.search(entry.name)]


def _matching(pattern: _Pattern, options: Mapping[str, Any]) -> _Found:
    """The files that a pattern matches, and all files below folders that it matches."""
    names_files = len(pattern.rest) == 1 and sort_of(pattern.rest[0]) in (Sort.TAR, Sort.PARQUET)
    listed = _visible(Store(pattern.base or "/", options).list(recursive=not names_files))
    files = [entry for entry in listed if any(pattern.matches(part) for part in _ancestors(entry.name))]
    if not files:
        raise CorpusError(_nothing(pattern.address, options))
    alone = [entry for entry in files if not any(pattern.matches(part) for part in _ancestors(_above(entry.name)))]
    return _Found(pattern.address, pattern.base, files, alone)


def is_readable(path: str) -> bool:
    """Whether the path leads to one file wherever it is read: without an empty part, `.` or `..`."""
    return not {"", ".", ".."} & set(path.split("/"))


def above_and(folder: str) -> list[str]:
    """The folder and those that it lies in, from the root ("") down."""
    return ["", *reversed(list(_ancestors(folder)))]


def _above(path: str) -> str:
    return path.rpartition("/")[0]


def _ancestors(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


def _refuse_compressed(sorts: Mapping[str, Sort], shown: str) -> None:
    path = next((path for path, sort in sorts.items() if sort is Sort.COMPRESSED_TAR), None)
    if path:
        raise CorpusError(
            f"{shown}: {path} is a compressed tar, and those can't be read from their middle, as resuming needs. "
            f"Decompress it (images hardly shrink), or name only the other files"
        )


def _guess_format(sorts: Mapping[str, Sort], shown: str) -> Format:
    counts = Counter(sorts.values())
    found: dict[Format, Sort] = {"tar": Sort.TAR, "parquet": Sort.PARQUET, "folder": Sort.IMAGE}
    formats: list[Format] = [format for format, sort in found.items() if counts[sort]]
    if len(formats) > 1:
        first = {format: next(path for path, sort in sorts.items() if sort is found[format]) for format in formats}
        there = " and ".join(f"{counts[found[format]]:,} of {format} ({first[format]}, ...)" for format in formats)
        ways = " or ".join(f"`format: {format}`" for format in formats)
        raise CorpusError(
            f"{shown} holds files of several formats: {there}. Write {ways} under `corpus`, as --set "
            f"corpus.format={formats[-1]} does, or name the files"
        )
    if not formats:
        _refuse_compressed(sorts, shown)
    return formats[0] if formats else "folder"


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
