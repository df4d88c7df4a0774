"""The corpus: what a recipe says of the input, its shards, and their samples unit by unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..storage.errors import StorageError
from ..storage.store import Entry, Store, url_problem
from .folder import pictures, read_folder
from .growth import grown
from .listing import Found, find_files
from .parquet import find_columns, open_parquet, read_parquet
from .samples import (
    CorpusError,
    Item,
    Rejection,
    Sample,
    Selection,
    Stretch,
    UnitLimits,
    UnitSamples,
    changed_since,
    cut,
)
from .taken import Shard, Taken
from .tar import read_tar

__all__ = ["Corpus", "CorpusError", "CorpusSettings", "Rejection", "Sample", "Shard", "UnitLimits", "UnitSamples"]


class CorpusSettings(BaseModel):
    """The images to work on, and what comes along with them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | list[str] = Field(
        description="tars, Parquet files or a folder of images: a path or fsspec URL, with {000..123}, {a,b}, *, ?, **"
    )
    format: Literal["auto", "tar", "parquet", "folder"] = "auto"
    image: str | None = Field(default=None, description="column, or extension, of the image; found by itself")
    key: str | None = Field(default=None, description="Parquet's key column: key, __key__, id, or the row's number")
    fields: list[str] | None = Field(default=None, description="the fields to keep beside the image; by default all")
    storage_options: dict[str, Any] = Field(default_factory=dict, description="fsspec options", repr=False)

    @field_validator("url")
    @classmethod
    def _possible(cls, value: str | list[str]) -> str | list[str]:
        urls = [value] if isinstance(value, str) else value
        if problem := next(filter(None, map(url_problem, urls or [""])), None):
            raise ValueError(problem)
        return value

    @field_validator("image")
    @classmethod
    def _without_dot(cls, value: str | None) -> str | None:
        return value.lstrip(".") if value else None


@dataclass
class Corpus:
    """The samples behind some settings. Cheap to make and to send: nothing is read before it is asked for."""

    settings: CorpusSettings
    _stores: dict[str, Store] = field(default_factory=dict, repr=False)

    def find(self, known_root: str = "") -> Found:
        """The files, from fresh listings alone. known_root: as of `find_files`.

        Raises CorpusError when a URL stands for nothing.
        """
        settings = self.settings
        urls = [settings.url] if isinstance(settings.url, str) else settings.url
        format = None if settings.format == "auto" else settings.format
        return find_files(urls, format, settings.image, settings.storage_options, known_root)

    def shards(self) -> list[Shard]:
        """Every shard, in order, of a corpus that nothing was taken up of yet. Raises as `find` does."""
        return grown(self.find(), Taken(), self.settings.image).shards

    def check(self, shards: Sequence[Shard]) -> None:
        """Look into the first shard for the columns that the settings name. Raises CorpusError; call it before work."""
        if not shards or shards[0].format != "parquet":
            return
        import pyarrow as pa

        shard = shards[0]
        try:
            schema = open_parquet(self._store(shard.root), shard.path, shard.size).schema_arrow
        except (StorageError, FileNotFoundError):
            raise
        except (pa.ArrowException, OSError):
            return  # a broken shard costs itself, when it is read
        find_columns(schema, shard.url, self._selection)

    def read(
        self, shard: Shard, start: int = 0, stop: int | None = None, limits: UnitLimits | None = None
    ) -> Iterator[UnitSamples]:
        """The units of `shard` from position `start` until `stop` (None: its end), one in memory at a time.

        The units after any unit's start are the same wherever reading began. Bad samples are dropped and listed in
        their unit's `rejected`, broken shards end with a rejection. Raises FileNotFoundError for a shard that is gone,
        StorageError when the storage fails, CorpusError for a file that changed after it was listed.
        """
        stretch = Stretch(self._store(shard.root), shard.path, shard.size, start, stop)
        return cut(self._items(shard, stretch), shard.id, start, stop, limits or UnitLimits())

    def _items(self, shard: Shard, stretch: Stretch) -> Iterator[Item]:
        if shard.format != "folder" and stretch.store.size(shard.path) != shard.size:
            raise changed_since(shard.url)
        if shard.format == "tar":
            return read_tar(stretch, self._selection)
        if shard.format == "parquet":
            return read_parquet(stretch, self._selection)
        found = pictures((Entry(name, size, 0.0) for name, size in shard.files), self.settings.image)
        return read_folder(stretch, found, dict(shard.doubled), self._selection)

    @property
    def _selection(self) -> Selection:
        return Selection(self.settings.image, self.settings.key, self.settings.fields)

    def _store(self, root: str) -> Store:
        if root not in self._stores:
            self._stores[root] = Store(root, self.settings.storage_options)
        return self._stores[root]
