"""The corpus: what a recipe says of the input, its shards, and their samples unit by unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..storage.errors import StorageError, redact
from ..storage.store import Entry, Store, absolute_url, url_problem
from ..storage.windows import WindowFile
from .folder import pictures, read_folder
from .formats import LINES, Format
from .growth import grown
from .left_out import Account, Why
from .lines import check_field, read_lines
from .listing import Choice, Found, find_files
from .parquet import find_columns, open_parquet, read_parquet
from .reach import Reach
from .samples import (
    TEXT,
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
from .tables import unused
from .taken import Shard, Taken
from .tar import read_tar
from .units import spread

__all__ = ["Corpus", "CorpusError", "CorpusSettings", "Rejection", "Sample", "Shard", "UnitLimits", "UnitSamples"]


_MOST_TABLES = 10
"""Tables that are looked into before a run."""


class CorpusSettings(BaseModel):
    """The images or texts to work on, and what comes along with them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | list[str] = Field(
        description="tars, Parquet files or a folder of images, or files of texts: a path or fsspec URL, with "
        "{000..123}, {a,b}, *, ?, **"
    )
    format: Literal["auto", "tar", "parquet", "folder", "jsonl", "text"] = "auto"
    text: str | None = Field(
        default=None, description="the field, or column, of the text: makes it a corpus of texts, without images"
    )
    image: str | None = Field(default=None, description="column, or extension, of the image; found by itself")
    key: str | None = Field(
        default=None,
        description="Parquet's key column: key, __key__, id, or the row's number; of texts where each lies in its file",
    )
    split: Literal["first", "last"] = Field(
        default="first", description="tars: the dot of a name at which its sample's key ends; WebDataset has the first"
    )
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

    @model_validator(mode="before")
    @classmethod
    def _named_text(cls, value: Any) -> Any:
        """`format: jsonl` alone means a corpus of texts, in the field of that name."""
        if isinstance(value, dict) and value.get("format") in LINES and value.get("text") is None:
            return {**value, "text": TEXT}
        return value

    @model_validator(mode="after")
    def _images_or_texts(self) -> CorpusSettings:
        if self.text is not None and (self.image is not None or self.format in ("tar", "folder")):
            other = "image" if self.image is not None else f"format: {self.format}"
            raise ValueError(f"`text` makes it a corpus of texts, and `{other}` one of images: give one of them")
        if self.format == "text" and self.key is not None:
            raise ValueError("`key` names a field, and lines of plain text have none: leave it out")
        return self

    @property
    def urls(self) -> list[str]:
        return [self.url] if isinstance(self.url, str) else self.url


@dataclass
class Corpus:
    """The samples behind some settings. Cheap to make and to send: nothing is read before it is asked for."""

    settings: CorpusSettings
    _stores: dict[str, Store] = field(default_factory=dict, repr=False)

    def find(self, known_root: str = "", known_format: Format | None = None) -> Found:
        """The files, from fresh listings alone. known_root, known_format: as of `find_files`.

        Raises CorpusError when a URL stands for nothing.
        """
        settings = self.settings
        format = None if settings.format == "auto" else settings.format
        texts = settings.text is not None
        return find_files(settings.urls, format, settings.image, self.reach, known_root, known_format, texts)

    def shards(self) -> list[Shard]:
        """Every shard, in order, of a corpus that nothing was taken up of yet. Raises as `find` does."""
        return grown(self.find(), Taken(), self.settings.image).shards

    def refuse_output(self, url: str) -> None:
        """Raises CorpusError where what lies there belongs to the corpus, or may do once more of it is written."""
        if Choice(self.settings.urls, self.reach).meets(absolute_url(url)):
            raise CorpusError(
                f"{redact(url)} lies in the corpus, or the corpus in it, so that a later run would take the output for "
                f"part of it; choose a place outside of it, as --output does"
            )

    def check(self, shards: Sequence[Shard]) -> list[str]:
        """Look into the first shard for the columns that the settings name. Raises CorpusError; call it before work.

        What columns and tables there are that aren't taken, a line for each reason.
        """
        shard = next(iter(shards), None)
        if shard is None or shard.format in ("tar", "text"):
            return []
        if shard.format == "jsonl":
            check_field(self._stretch(shard), self._selection, shard.url)
            return []
        if shard.format == "folder":
            return self._check_tables(shards)
        import pyarrow as pa

        try:
            schema = open_parquet(WindowFile(self.store(shard.root), shard.path, shard.size)).schema_arrow
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

    def _check_tables(self, shards: Sequence[Shard]) -> list[str]:
        """What can't be used of the first tables beside images, and which of their images aren't there."""
        tables = dict.fromkeys((shard.root, path) for shard in shards for path, _ in shard.tables)
        told: list[str] = []
        for root, table in islice(tables, _MOST_TABLES):
            own = [shard for shard in shards if shard.root == root and any(path == table for path, _ in shard.tables)]
            images = {f"{shard.path}/{name}".lstrip("/") for shard in own for name, _ in shard.files}
            told += unused(self.store(root), table, images)
        return told

    def read(
        self, shard: Shard, start: int = 0, stop: int | None = None, limits: UnitLimits | None = None
    ) -> Iterator[UnitSamples]:
        """The units of `shard` from position `start` until `stop` (None: its end), one in memory at a time.

        The units after any unit's start are the same wherever reading began. Bad samples are dropped and listed in
        their unit's `rejected`, broken shards end with a rejection. Raises FileNotFoundError for a shard that is gone,
        StorageError when the storage fails, CorpusError for a file that changed after it was listed.
        """
        items = self._items(shard, self._stretch(shard, start, stop))
        return cut(items, shard.id, start, stop, limits or UnitLimits())

    def begins(self, shard: Shard, start: int, stop: int | None, count: int) -> list[int]:
        """At most `count` positions of a stretch at which reading may begin: all over it in a folder, where that costs
        nothing; else `start` alone."""
        if shard.format != "folder":
            return [start]
        images = len(pictures((Entry(name, size, 0.0) for name, size in shard.files), self.settings.image))
        return spread(range(start, images if stop is None else stop), count) or [start]

    def _items(self, shard: Shard, stretch: Stretch) -> Iterator[Item]:
        if shard.format != "folder" and stretch.store.size(shard.path) != shard.size:
            raise changed_since(shard.url)
        if shard.format == "tar":
            return read_tar(stretch, self._selection)
        if shard.format == "parquet":
            return read_parquet(stretch, self._selection)
        if shard.format in LINES:
            return read_lines(stretch, self._selection, shard.format)
        found = pictures((Entry(name, size, 0.0) for name, size in shard.files), self.settings.image)
        return read_folder(stretch, found, dict(shard.doubled), shard.tables, self._selection)

    @property
    def _selection(self) -> Selection:
        settings = self.settings
        return Selection(settings.image, settings.key, settings.fields, settings.split, settings.text)

    def _stretch(self, shard: Shard, start: int = 0, stop: int | None = None) -> Stretch:
        return Stretch(self.store(shard.root), shard.path, shard.size, start, stop)

    def store(self, root: str) -> Store:
        if root not in self._stores:
            self._stores[root] = self.reach.store(root)
        return self._stores[root]

    @cached_property
    def reach(self) -> Reach:
        """How its files are reached. CorpusError."""
        return Reach.of(self.settings.urls, self.settings.storage_options)
