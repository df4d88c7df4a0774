"""Folders of images: every image file is a sample, with the texts beside it that share its name up to the extension.

A shard is one folder with the images directly in it; a position is an index into their sorted names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..storage.read_ahead import in_order
from ..storage.store import Entry, Store
from .formats import TABLES
from .left_out import Why
from .names import clean_key
from .samples import (
    LARGEST_IMAGE,
    LARGEST_TEXT,
    BadSample,
    Item,
    Sample,
    Selection,
    Stretch,
    check_key,
    check_size,
    fields_from,
    is_image,
    is_text,
    read_as_listed,
    rejection,
)
from .tables import fields_by_name

_READERS = 16
"""Requests at a time where every image is an object of its own behind a network."""


@dataclass(frozen=True)
class Picture:
    """An image file of a folder and the files beside it by extension, as the listing shows them."""

    stem: str
    image: Entry
    beside: Mapping[str, Entry] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files)

    @property
    def files(self) -> list[Entry]:
        return [self.image, *sorted(self.beside.values())]


def pictures(entries: Iterable[Entry], chosen: str | None) -> list[Picture]:
    """The images among one folder's direct entries, by name, with the texts `NAME.txt` or `NAME.jpg.txt` beside each.

    Hidden files are none. chosen: an extension.
    """
    images: list[tuple[str, Entry]] = []
    beside: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
    for entry in entries:
        stem, dot, extension = entry.name.rpartition(".")
        if not dot or entry.name.startswith("."):
            continue
        if is_image(extension, chosen):
            images.append((stem, entry))
        elif not is_image(extension, None) and entry.name not in TABLES:
            beside[stem][extension] = entry
    images.sort(key=lambda pair: pair[1].name)
    return [Picture(stem, entry, {**beside.get(entry.name, {}), **beside.get(stem, {})}) for stem, entry in images]


def pictures_by_folder(files: Mapping[str, int], chosen: str | None) -> Iterator[tuple[str, list[Picture]]]:
    """The images among files, given with their bytes by path, folder by folder: its path, with a slash at its end
    unless it is empty, and what `pictures` finds there."""
    by_folder: defaultdict[str, list[Entry]] = defaultdict(list)
    for path, size in files.items():
        folder, slash, name = path.rpartition("/")
        by_folder[folder + slash].append(Entry(name, size, 0.0))
    for folder, entries in sorted(by_folder.items()):
        yield folder, pictures(entries, chosen)


def read_folder(
    stretch: Stretch,
    found: list[Picture],
    doubled: Mapping[str, str],
    tables: Sequence[tuple[str, int]],
    selection: Selection,
) -> Iterator[Item]:
    """The samples of a stretch of the images `found` in a folder. Their keys are paths without the extension.

    doubled: those images, by name, whose keys other images have, and which. tables: paths and bytes of those that hold
    fields of the images; what lies beside an image comes before them.
    """
    store, folder = stretch.store, stretch.path
    stop = len(found) if stretch.stop is None else min(stretch.stop, len(found))
    indices = range(stretch.start, stop)
    told = fields_by_name(store, tables, folder, [found[index].image.name for index in indices])

    def load(index: int) -> Item:
        picture = found[index]
        key = clean_key(f"{folder}/{picture.stem}" if folder else picture.stem)
        try:
            check_key(key)
            if picture.image.name in doubled:
                raise BadSample("DuplicateKey", f"{picture.image.name} has the key of {doubled[picture.image.name]}")
            image, fields, no_texts = _contents(store, folder, picture, selection.fields)
        except BadSample as error:
            return Item(index, picture.size, rejection(key, error))
        row = told.get(picture.image.name, {})
        row = {name: row[name] for name in row if selection.fields is None or name in selection.fields}
        left_out = [(Why.NOT_TEXT, name) for name in no_texts]
        return Item(index, picture.size, Sample(key, image, {**row, **fields}), left_out)

    return map(load, indices) if store.is_local else in_order(load, indices, _READERS)


def _contents(
    store: Store, folder: str, picture: Picture, wanted: Collection[str] | None
) -> tuple[bytes, dict[str, Any], list[str]]:
    """The image, the fields beside it, and the names of files there that hold no text."""

    def content(entry: Entry) -> bytes:
        return read_as_listed(store, f"{folder}/{entry.name}" if folder else entry.name, entry.size)

    check_size(picture.image.name, picture.image.size, LARGEST_IMAGE)
    beside = {extension.lower(): entry for extension, entry in sorted(picture.beside.items())}
    chosen = {name: entry for name, entry in beside.items() if is_text(name, entry.size, wanted)}
    for entry in chosen.values():
        check_size(entry.name, entry.size, LARGEST_TEXT)
    check_size("what lies beside the image", sum(entry.size for entry in chosen.values()), LARGEST_TEXT)
    no_texts = [] if wanted is not None else [name for name in beside if name not in chosen]
    fields = fields_from({name: content(entry) for name, entry in chosen.items()}, wanted, no_texts)
    return content(picture.image), fields, sorted(beside[name].name for name in no_texts)
