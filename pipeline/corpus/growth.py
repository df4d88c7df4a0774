"""Growth: what of a corpus is new, changed or gone since a dataset took it up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field

from .folder import pictures_by_folder
from .formats import is_table, tables_of
from .listing import Found, way
from .samples import CorpusError
from .taken import Listing, Shard, Taken, files_of, placed, shards_of


@dataclass(frozen=True)
class Growth:
    """taken: what the dataset has taken up, with what is new. added: the listing of that, None where nothing is.

    shards: those that are as they were taken up, in order. new: paths of files that belong to no sample that was taken
    up. changed, gone: those of files that aren't as they were, or that are there no more. left: the shards with any
    such file: they count, but nothing more can be made of them.
    """

    taken: Taken
    added: Listing | None
    shards: list[Shard]
    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    left: list[Shard] = field(default_factory=list)


def grown(found: Found, before: Taken, image: str | None, take_changes: bool = False) -> Growth:
    """What has become of a corpus since a dataset took it up. image: as of `Taken.shards`.

    take_changes: whether shards of which anything has changed are retired, and made anew of what there is now.
    Raises CorpusError where nothing is left of what was taken up: that is another corpus.
    """
    standing = before.shards(found.root, image)
    taken = {path: size for shard in standing for path, size in files_of(shard, found.root).items()}
    # What is new beside an image that was taken up is a change of that image.
    news = {path: image for path, image in _beside(found, image) if image in taken and path not in taken}
    tables = _changed_tables(found, before, grows=any(path not in taken for path in found.files))
    changed = {path for shard in standing for path in _changed(shard, found, tables)}
    gone = taken.keys() - found.files.keys()
    if taken and len(gone) == len(taken):
        raise CorpusError(
            f"of the {len(taken):,} files that were taken up before, such as {min(gone)}, none is in the corpus: this "
            f"is another one. Give the corpus as it was, with what is new; or use another output"
        )
    touched = {*gone, *news.values()}
    left = [
        shard
        for shard in standing
        if any(_changed(shard, found, tables))
        or not touched.isdisjoint(files_of(shard, found.root))
        or any(holder not in found.files for _, holder in shard.doubled)  # so that these keys are nobody's
    ]
    ids = {shard.id for shard in left}
    whole = [shard for shard in standing if shard.id not in ids]
    added = _untaken(found, whole if take_changes else standing, image)
    retired = {*before.retired, *(ids if take_changes else ())}
    retired.difference_update(shard.id for shard in shards_of(added, found.root, image))
    new = bool(added.files) and added not in before.listings
    after = Taken((*before.listings, added) if new else before.listings, frozenset(retired))
    return Growth(
        taken=after,
        added=added if new else None,
        shards=[shard for shard in after.shards(found.root, image) if take_changes or shard.id not in ids],
        new=sorted(added.files.keys() - taken.keys() - changed - news.keys()) if new else [],
        changed=sorted({*changed, *news}),
        gone=sorted(gone),
        left=[] if take_changes else left,
    )


def _changed_tables(found: Found, before: Taken, grows: bool) -> set[str]:
    """The tables that aren't as they were when they were taken up last. One that has become longer while the corpus
    grew is taken to tell of what is new."""
    known = {path: size for listing in before.listings for path, size in listing.files.items() if is_table(path)}
    now = {path: found.files.get(path, size) for path, size in known.items()}
    return {path for path, size in known.items() if now[path] != size and not (grows and now[path] > size)}


def _changed(shard: Shard, found: Found, tables: Set[str]) -> Iterator[str]:
    """The files of a shard that are of another size now, and the tables that have come to tell of its images. tables:
    those that have changed."""
    files = files_of(shard, found.root)
    for path, size in files.items():
        if path in tables if is_table(path) else found.files.get(path, size) != size:
            yield path
    if shard.format == "folder":
        folder = way(found.root, f"{shard.root}/{shard.path}" if shard.path else shard.root)
        yield from (table for table in tables_of(folder, found.files) if table not in files)


def _untaken(found: Found, standing: Iterable[Shard], image: str | None) -> Listing:
    """The files that are in none of the shards."""
    standing = list(standing)
    taken = {path for shard in standing for path in files_of(shard, found.root)}
    if found.format != "folder":
        return Listing(found.format, {path: size for path, size in found.files.items() if path not in taken})
    keys = {key: path for shard in standing for key, path in _keys(shard, found.root, image)}
    files: dict[str, int] = {}
    doubled: dict[str, str] = {}
    for folder, found_there in pictures_by_folder(found.files, image):
        for picture in found_there:
            path = folder + picture.image.name
            if path not in taken:
                files.update((folder + entry.name, entry.size) for entry in picture.files)
                files.update((table, found.files[table]) for table in tables_of(folder, found.files))
                holder = keys.setdefault(_key(folder, picture.stem), path)
                if holder != path:
                    doubled[path] = holder
    return Listing("folder", files, doubled)


def _keys(shard: Shard, root: str, image: str | None) -> Iterator[tuple[str, str]]:
    """The keys of a shard's loose images, with the images' paths."""
    doubled = dict(shard.doubled)
    for folder, found in pictures_by_folder(files_of(shard, root), image):
        for picture in found:
            if picture.image.name not in doubled:
                yield _key(folder, picture.stem), folder + picture.image.name


def _key(folder: str, stem: str) -> str:
    return placed("", folder)[1] + stem


def _beside(found: Found, image: str | None) -> Iterator[tuple[str, str]]:
    """The files beside loose images, each with the image."""
    for folder, pictures in pictures_by_folder(found.files, image) if found.format == "folder" else ():
        for picture in pictures:
            yield from ((folder + entry.name, folder + picture.image.name) for entry in picture.beside.values())
