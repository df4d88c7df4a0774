"""From the URLs of a recipe to the files of a corpus, by listings alone."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from ..storage.errors import redact, without_credentials
from ..storage.read_ahead import in_order
from ..storage.store import Entry, Store, absolute_url
from .folder import pictures_by_folder
from .formats import Format, Sort, sort_among_texts, sort_of, sorts_of, tables_of
from .left_out import Account, Why
from .names import is_hidden
from .reach import Reach, braces, parted
from .samples import UNREAD_EXTENSIONS, CorpusError, is_image

_MAGIC = re.compile(r"[*?\[]")
_FEW = 4
_MANY = 5_000
"""Names of a folder among which a message looks for one that may be meant."""
_WHY = {sort: Why[sort.name] for sort in Sort if sort.name in Why.__members__}


@dataclass(frozen=True)
class Found:
    """The files that a corpus' URLs stand for, of one format.

    root: URL of the folder that paths are relative to, which may hold credentials. files: bytes by path; one that
    begins with `../` lies outside of the root. left_out: what else lies there, a line for each reason.
    """

    root: str
    format: Format
    files: dict[str, int]
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class _Match:
    """What one URL stands for. base: its folder; files: relative to that; alone: those of them that are meant, and not
    a folder that they lie in; named: whether it is one file's own URL."""

    url: str
    base: str
    files: list[Entry]
    alone: Sequence[Entry] = ()
    named: bool = False


def find_files(
    urls: Sequence[str],
    format: Format | None,
    image: str | None,
    reach: Reach,
    known_root: str = "",
    known_format: Format | None = None,
    texts: bool = False,
) -> Found:
    """The files that the URLs stand for. Raises CorpusError when one stands for nothing. texts: whether they are a
    corpus of texts.

    The root is the innermost folder with all that the first URL stands for, so that paths, and with them keys and the
    shards' ids, stay as they are when URLs are added, and when the corpus moves as a whole. known_root: that which a
    dataset has had, without credentials; it stays the root for as long as any file lies below it. known_format: that
    which it has had; where files of several lie there and none is named, it stays.
    """
    by_url = [list(_resolve(url, reach)) for url in urls]
    matches = [match for found in by_url for match in found]
    _refuse_two_places([match.base for match in matches])
    root = _known(matches, known_root) or _common_folder([match.base for match in by_url[0]])
    files: dict[str, int] = {}
    named: set[str] = set()
    chosen: dict[str, str] = {}
    ways, account = _Ways(root), Account()
    for match in matches:
        for entry in match.files:
            if not (entry.is_file and is_readable(entry.name)):
                account.add(Why.UNREADABLE_NAME if entry.is_file else Why.NO_FILE, entry.name)
                continue
            folder, _, name = f"{match.base}/{entry.name}".rpartition("/")
            files[ways[folder] + name] = entry.size
            named.update([ways[folder] + name] if match.named else [])
        folders = {f"{match.base}/{entry.name}".rpartition("/")[0] for entry in match.alone}
        chosen.update((folder, ways[folder]) for folder in folders)
    shown = ", ".join(redact(url) for url in urls)
    if not files:
        raise CorpusError(f"{shown} holds nothing that can be read: {'; '.join(account.told())}")
    if texts:
        sorts = {path: sort_among_texts(path) for path in files}
    else:
        sorts = sorts_of(files, image) if format in (None, "folder") else {path: sort_of(path, image) for path in files}
    format = format or _guess_format(sorts, shown, known_format, texts)
    if format == "tar":
        _refuse_compressed(sorts, shown)
    asked = dict(files)
    if format == "folder":
        for folder, way_there in chosen.items():
            files.update(_texts_beside(folder, way_there, files, reach))
        by_folder = [(folder, found) for folder, found in pictures_by_folder(files, image) if found]
        wanted = {folder + entry.name for folder, found in by_folder for one in found for entry in one.files}
        wanted.update(table for folder, _ in by_folder for table in tables_of(folder, files))
    else:
        wanted = {path for path in files if sorts[path].value == format or path in named}
    if not wanted:
        what = f".{image} images" if image and format == "folder" else "images" if format == "folder" else format
        examples = ", ".join(sorted(files)[:3])
        raise CorpusError(f"{shown} holds no {what} but {len(files):,} other files, such as {examples}")
    for path in sorted(asked.keys() - wanted):
        account.add(Why.NO_TEXTS if texts else _why(path, sorts[path], format), path)
    return Found(root, format, {path: files[path] for path in sorted(wanted)}, account.told())


def _texts_beside(folder: str, way_there: str, files: Mapping[str, int], reach: Reach) -> Iterator[tuple[str, int]]:
    """What lies in a folder beside images that were chosen one by one, or by their endings."""
    entries = {entry.name: entry.size for entry in _visible(reach.store(folder or "/").list(recursive=False))}
    for name, sort in sorts_of(entries, None).items():
        if sort in (Sort.TABLE, Sort.OTHER) and way_there + name not in files:
            yield way_there + name, entries[name]


def _why(path: str, sort: Sort, format: Format) -> Why:
    """Why a file isn't taken."""
    extension = path.rpartition(".")[2].lower()
    if format == "folder" and sort is Sort.OTHER and is_image(extension, None):
        return Why.OTHER_IMAGE
    if format == "folder" and sort is Sort.OTHER and extension in ("txt", "json"):
        return Why.TEXT
    if sort is Sort.OTHER and extension in UNREAD_EXTENSIONS:
        return Why.UNREAD_IMAGE
    return _WHY.get(sort, Why.FILE)


def _known(matches: Sequence[_Match], root: str) -> str | None:
    """The known root, with the credentials that the corpus is read with, if anything lies below it."""
    root = root and absolute_url(root)  # as this version writes it
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


def _resolve(url: str, reach: Reach) -> Iterator[_Match]:
    """What a URL stands for: its names must be there, its patterns look."""
    names, patterns = _expanded(url, reach)
    by_parent: defaultdict[str, list[str]] = defaultdict(list)
    for one in names:
        parent, _, name = one.rpartition("/")
        by_parent[parent].append(name)
    missing: list[str] = []
    for parent, children in by_parent.items():
        yield from _named(parent, children, reach, missing)
    if missing:
        raise CorpusError(_nothing(missing[0], reach, len(missing), len(names) + len(patterns)))
    for pattern in patterns:
        yield _matching(pattern, reach)


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

    def meets(self, folder: str) -> bool:
        """Whether it may match the folder's address, one above it, or one below it."""
        from fsspec.utils import glob_translate

        base, parts = self.base.split("/"), folder.split("/")
        if parts[: len(base)] != base[: len(parts)]:
            return False
        for pattern, part in zip(self.rest, parts[len(base) :], strict=False):
            if pattern == "**":
                return True
            if not re.match(glob_translate(pattern), part):
                return False
        return True


def _expanded(url: str, reach: Reach) -> tuple[list[str], list[_Pattern]]:
    """The addresses that a URL names, braces first ({000..123} and {a,b}), and those with * or ?, which look.

    Without its query. A part in brackets is a pattern, too, unless there is something of that very name.
    """
    address = absolute_url(parted(url)[0])
    if "://" not in address and Path(address).exists():
        return [address], []
    names, patterns = [], []
    for one in braces(address):
        parts = one.split("/")
        fixed = next((at for at in range(len(parts)) if _is_magic(parts, at, reach)), None)
        if fixed is None:
            names.append(one)
        else:
            patterns.append(_Pattern("/".join(parts[:fixed]), tuple(parts[fixed:])))
    return names, patterns


def _is_magic(parts: Sequence[str], at: int, reach: Reach) -> bool:
    if "*" in parts[at] or "?" in parts[at]:
        return True
    if "[" not in parts[at]:
        return False
    return not _is_there(reach.store("/".join(parts[:at]) or "/"), parts[at])


def _is_there(store: Store, name: str) -> bool:
    """Whether a file or folder has that name, which takes a few requests however many others lie there."""
    if store.is_local:
        return Path(store.address, name).exists()
    return store.exists(name) or any(store.child_pages(name))


class Choice:
    """Which addresses the URLs of a corpus stand for, whether or not anything is there."""

    def __init__(self, urls: Iterable[str], reach: Reach) -> None:
        expanded = [_expanded(url, reach) for url in urls]
        self._names = {name for names, _ in expanded for name in names}
        self._patterns = [pattern for _, patterns in expanded for pattern in patterns]

    def meets(self, folder: str) -> bool:
        """Whether what lies in the folder may be meant, or the folder itself, whatever its files are called."""
        names = any(name.startswith(f"{folder}/") for name in self._names) or self._names & {*_ancestors(folder)}
        return bool(names) or any(pattern.meets(folder) for pattern in self._patterns)


def _named(parent: str, names: list[str], reach: Reach, missing: list[str]) -> Iterator[_Match]:
    """The files and folders of these names; what is neither is added to `missing`. Many cost one listing, but those
    that have queries, which go with files alone."""
    whole_bucket = parent.endswith(":/")
    sizes = {} if whole_bucket else _sizes(parent, names, reach)
    for name in names:
        url = f"{parent}/{name}"
        if name in sizes:
            files = [Entry(name, sizes[name], 0.0)]
            yield _Match(url, parent, files, files, named=True)
        elif url not in reach.queries and (below := _visible(reach.store(url).list(others=True))):
            yield _Match(url, url, below)
        else:
            missing.append(url)


def _sizes(parent: str, names: list[str], reach: Reach) -> dict[str, int]:
    """Of those names that are files."""
    store = reach.store(parent or "/")
    asked = any(f"{parent}/{name}" in reach.queries for name in names)
    if len(names) > _FEW and not asked:
        return {entry.name: entry.size for entry in store.list(recursive=False)}
    found = in_order(lambda name: store.size(name) if name and store.exists(name) else None, names)
    return {name: size for name, size in zip(names, found, strict=True) if size is not None}


def _visible(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if not is_hidden(entry.name)]


def _matching(pattern: _Pattern, reach: Reach) -> _Match:
    """The files that a pattern matches, and all files below folders that it matches."""
    shards = (Sort.TAR, Sort.PARQUET, Sort.JSON_LINES, Sort.PLAIN_TEXT)
    names_files = len(pattern.rest) == 1 and {sort_of(pattern.rest[0]), sort_among_texts(pattern.rest[0])} & {*shards}
    listed = _visible(reach.store(pattern.base or "/").list(recursive=not names_files, others=True))
    files = [entry for entry in listed if any(pattern.matches(part) for part in _ancestors(entry.name))]
    if not files:
        raise CorpusError(_nothing(pattern.address, reach))
    alone = [entry for entry in files if not any(pattern.matches(part) for part in _ancestors(_above(entry.name)))]
    return _Match(pattern.address, pattern.base, files, alone)


def is_readable(path: str) -> bool:
    """Whether the path leads to one file wherever it is read: without an empty part, `.` or `..`."""
    return not {"", ".", ".."} & set(path.split("/"))


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


def _guess_format(sorts: Mapping[str, Sort], shown: str, known: Format | None, texts: bool) -> Format:
    counts = Counter(sorts.values())
    found: dict[Format, Sort] = {"tar": Sort.TAR, "parquet": Sort.PARQUET, "folder": Sort.IMAGE}
    if texts:
        found = {"jsonl": Sort.JSON_LINES, "parquet": Sort.PARQUET, "text": Sort.PLAIN_TEXT}
    formats: list[Format] = [format for format, sort in found.items() if counts[sort]]
    if known in formats:
        return known
    if len(formats) > 1:
        first = {format: next(path for path, sort in sorts.items() if sort is found[format]) for format in formats}
        there = " and ".join(f"{counts[found[format]]:,} of {format} ({first[format]}, ...)" for format in formats)
        ways = " or ".join(f"`format: {format}`" for format in formats)
        raise CorpusError(
            f"{shown} holds files of several formats: {there}. Write {ways} under `corpus`, as --set "
            f"corpus.format={formats[-1]} does, or name the files"
        )
    if not formats and texts:
        raise CorpusError(
            f"{shown} holds no texts, going by the names of its {len(sorts):,} files, such as {min(sorts)}: "
            f"{Why.NO_TEXTS.value[-1]}. Files of other names are taken with `format: jsonl` or `format: text`, where "
            f"each is named by its own URL"
        )
    if not formats:
        _refuse_compressed(sorts, shown)
    return formats[0] if formats else "folder"


def _refuse_two_places(bases: Sequence[str]) -> None:
    """Raises CorpusError unless all folders lie on one file system, and in one bucket."""
    places = {"/".join(base.split("/")[:3]) if "://" in base else "" for base in bases}
    if len(places) > 1:
        shown = ", ".join(sorted({redact(base) for base in bases})[:3])
        raise CorpusError(
            f"the URLs of a corpus must share a bucket: {shown}. Make a dataset of each, and mix in training"
        )


def _nothing(url: str, reach: Reach, missing: int = 1, of: int = 1) -> str:
    """The message for a URL that stands for nothing: what there is at the nearest place that exists."""
    if "://" not in url and Path(url).is_dir():
        return f"{url}: the folder is empty"
    parts = url.split("/")
    message = f"{redact(url)}: nothing is there"
    if missing > 1 or of > 1:
        message += f", one of {missing:,} missing of {of:,}"
    if url in reach.queries:
        return message
    lowest = 3 if "://" in url else 1
    for length in range(len(parts) - 1, lowest - 1, -1):
        folder = "/".join(parts[:length]) or "/"
        pages = () if _MAGIC.search(folder) else reach.store(folder).child_pages()
        if children := sorted(islice((name for page in pages for name in page if name[0] != "."), _MANY)):
            close = difflib.get_close_matches(parts[length], children, 3, 0.5) or children[:3]
            number = f"{len(children):,}" if len(children) < _MANY else f"at least {_MANY:,}"
            return f"{message}. {redact(folder)} exists and holds {number} names, such as {', '.join(close)}"
    return message
