"""The corpus: what a recipe says of the input, its shards, and their samples unit by unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..storage.errors import StorageError
from ..storage.store import Entry, Store, absolute_url
from .folder import folder_identity, pictures, read_folder
from .left_out import Account, Why
from .listing import Choice, Listing, Shard, folder_shard_id, list_corpus
from .parquet import find_columns, open_parquet, read_parquet
from .samples import CorpusError, Item, Rejection, Sample, Selection, Stretch, UnitLimits, UnitSamples, cut
from .tables import unusable
from .tar import read_tar

__all__ = ["Corpus", "CorpusError", "CorpusSettings", "Rejection", "Sample", "Shard", "UnitLimits", "UnitSamples"]


_MOST_TABLES = 10
"""Tables that are looked into before a run."""


class CorpusSettings(BaseModel):
    """The images to work on, and what comes along with them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | list[str] = Field(
        description="tars, Parquet files or a folder of images: a path or fsspec URL, with {000..123}, {a,b}, *, ?, **"
    )
    format: Literal["auto", "tar", "parquet", "folder"] = "auto"
    image: str | None = Field(default=None, description="column, or extension, of the image; found by itself")
    key: str | None = Field(default=None, description="Parquet's key column: key, __key__, id, or the row's number")
    split: Literal["first", "last"] = Field(
        default="first", description="tars: the dot of a name at which its sample's key ends; WebDataset has the first"
    )
    fields: list[str] | None = Field(default=None, description="the fields to keep beside the image; by default all")
    storage_options: dict[str, Any] = Field(default_factory=dict, description="fsspec options", repr=False)

    @field_validator("url")
    @classmethod
    def _not_empty(cls, value: str | list[str]) -> str | list[str]:
        if not value or ("" in value and isinstance(value, list)):
            raise ValueError("name at least one path or URL")
        return value

    @field_validator("image")
    @classmethod
    def _without_dot(cls, value: str | None) -> str | None:
        return value.lstrip(".") if value else None

    @property
    def urls(self) -> list[str]:
        return [self.url] if isinstance(self.url, str) else self.url

    def resolved(self) -> CorpusSettings:
        """With absolute paths, that mean the same in every process."""
        return self.model_copy(update={"url": [absolute_url(url) for url in self.urls]})


@dataclass
class Corpus:
    """The samples behind some settings. Cheap to make and to send: nothing is read before it is asked for."""

    settings: CorpusSettings
    _stores: dict[str, Store] = field(default_factory=dict, repr=False)

    def listing(self) -> Listing:
        """Every shard, sorted by path, from fresh listings alone. Raises CorpusError when a URL stands for nothing."""
        settings = self.settings
        format = None if settings.format == "auto" else settings.format
        listing = list_corpus(settings.urls, format, settings.image, settings.storage_options)
        paths: dict[str, str] = {}
        for shard in listing.shards:
            if paths.setdefault(shard.id, shard.path) != shard.path:
                raise CorpusError(f"the shards {paths[shard.id]} and {shard.path} have one id: rename either")
        return listing

    def shards(self) -> Sequence[Shard]:
        """Those of a fresh listing."""
        return self.listing().shards

    def takes(self, url: str) -> bool:
        """Whether what lies at a URL, there or not, belongs to the corpus."""
        return self._choice.takes(absolute_url(url))

    def check(self, shards: Sequence[Shard]) -> list[str]:
        """Look into the first shard for the columns that the settings name. Raises CorpusError; call it before work.

        What columns and tables there are that aren't taken, a line for each.
        """
        shard = next(iter(shards), None)
        if shard is None or shard.format == "tar":
            return []
        store = self._store(shard.root)
        if shard.format == "folder":
            tables = dict.fromkeys(path for one in shards for path in one.tables)
            return [line for path in islice(tables, _MOST_TABLES) if (line := unusable(store, path))]
        import pyarrow as pa

        try:
            schema = open_parquet(store, shard.path, shard.size).schema_arrow
        except (StorageError, FileNotFoundError):
            raise
        except (pa.ArrowException, OSError):
            return []  # a broken shard costs itself, when it is read
        columns = find_columns(schema, shard.url, self._selection)
        account = Account()
        for column in schema if self.settings.fields is None else ():
            if column.name not in (columns.image, columns.key, *columns.fields):
                account.add(Why.COLUMN, f"{column.name} ({column.type})")
        return account.told()

    def read(
        self, shard: Shard, start: int = 0, stop: int | None = None, limits: UnitLimits | None = None
    ) -> Iterator[UnitSamples]:
        """The units of `shard` from position `start` until `stop` (None: its end), one in memory at a time.

        The units after any unit's start are the same wherever reading began. Bad samples are dropped and listed in
        their unit's `rejected`, broken shards end with a rejection. Raises FileNotFoundError for a shard that is gone,
        StorageError when the storage fails, CorpusError for a folder that changed after it was listed.
        """
        stretch = Stretch(self._store(shard.root), shard.path, shard.size, start, stop)
        return cut(self._items(shard, stretch), shard.id, start, stop, limits or UnitLimits())

    def _items(self, shard: Shard, stretch: Stretch) -> Iterator[Item]:
        if shard.format == "tar":
            return read_tar(stretch, self._selection)
        if shard.format == "parquet":
            return read_parquet(stretch, self._selection)
        folder = f"{shard.root}/{shard.path}".rstrip("/")
        listed, choice = stretch.store.list(shard.path, recursive=False), self._choice
        found = pictures(listed, self.settings.image, lambda name: choice.takes(f"{folder}/{name}"))
        tables = [Entry(path, stretch.store.size(path), 0.0) for path in shard.tables]
        if folder_shard_id(shard.path, *folder_identity(found, tables)) != shard.id:
            raise CorpusError(f"the images in {shard.url} changed while the run was under way: start it again")
        return read_folder(stretch, found, self._selection, {entry.name for entry in listed}, shard.tables)

    @property
    def _selection(self) -> Selection:
        settings = self.settings
        return Selection(settings.image, settings.key, settings.fields, settings.split)

    @cached_property
    def _choice(self) -> Choice:
        return Choice(self.settings.urls, self.settings.storage_options)

    def _store(self, root: str) -> Store:
        if root not in self._stores:
            self._stores[root] = Store(root, self.settings.storage_options)
        return self._stores[root]
