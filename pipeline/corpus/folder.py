"""Folders of images: every image file is a sample, with the texts beside it that share its name up to the extension.

A shard is one folder with the images directly in it; a position is an index into their sorted names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..storage.read_ahead import in_order
from ..storage.store import Entry, Store
from .samples import (
    LARGEST_IMAGE,
    LARGEST_TEXT,
    BadSample,
    Item,
    Sample,
    Selection,
    Stretch,
    changed_since,
    check_key,
    check_size,
    clean_key,
    fields_from,
    is_image,
    is_text,
    rejection,
)

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
    """The images among one folder's direct entries, by name. Hidden files are none; `chosen`: an extension."""
    images: list[tuple[str, Entry]] = []
    beside: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
    for entry in entries:
        stem, dot, extension = entry.name.rpartition(".")
        if not dot or entry.name.startswith("."):
            continue
        if is_image(extension, chosen):
            images.append((stem, entry))
        elif not is_image(extension, None):
            beside[stem][extension] = entry
    return [Picture(stem, entry, beside.get(stem, {})) for stem, entry in sorted(images, key=lambda pair: pair[1].name)]


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
    stretch: Stretch, found: list[Picture], doubled: Mapping[str, str], selection: Selection
) -> Iterator[Item]:
    """The samples of a stretch of the images `found` in a folder. Their keys are paths without the extension.

    doubled: those images, by name, whose keys other images have, and which.
    """
    store, folder = stretch.store, stretch.path

    def load(index: int) -> Item:
        picture = found[index]
        key = clean_key(f"{folder}/{picture.stem}" if folder else picture.stem)
        try:
            check_key(key)
            if picture.image.name in doubled:
                raise BadSample("DuplicateKey", f"{picture.image.name} has the key of {doubled[picture.image.name]}")
            sample = Sample(key, *_contents(store, folder, picture, selection.fields))
        except BadSample as error:
            return Item(index, picture.size, rejection(key, error))
        return Item(index, picture.size, sample)

    stop = len(found) if stretch.stop is None else min(stretch.stop, len(found))
    indices = range(stretch.start, stop)
    return map(load, indices) if store.is_local else in_order(load, indices, _READERS)


def _contents(store: Store, folder: str, picture: Picture, wanted: Collection[str] | None) -> tuple[bytes, dict]:
    def content(entry: Entry, limit: int) -> bytes:
        check_size(entry.name, entry.size, limit)
        path = f"{folder}/{entry.name}" if folder else entry.name
        try:
            data = store.read(path)
        except FileNotFoundError:
            raise changed_since(f"{store.url}/{path}") from None
        if len(data) != entry.size:
            raise changed_since(f"{store.url}/{path}")
        return data

    texts = {
        extension.lower(): content(entry, LARGEST_TEXT)
        for extension, entry in sorted(picture.beside.items())
        if is_text(extension, entry.size, wanted)
    }
    return content(picture.image, LARGEST_IMAGE), fields_from(texts, wanted)
