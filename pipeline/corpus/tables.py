"""Tables beside images, as Hugging Face's `imagefolder` has them: a row for each image, named under `file_name`.

metadata.jsonl, metadata.csv or metadata.parquet hold for their folder and those below; names are relative to it.
"""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from csv import Error, reader
from typing import TYPE_CHECKING, Any

from ..storage.store import Store
from .left_out import Account, Why
from .names import clean_key
from .parquet import is_plain
from .samples import CorpusError, decoded, jsonable, read_as_listed

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "file_name"

_LARGEST = 2**30


def fields_by_name(store: Store, tables: Sequence[tuple[str, int]], folder: str) -> dict[str, dict[str, Any]]:
    """What the tables say of the files directly in a folder, by their names; of several the last holds.

    tables: paths and bytes. What can't be used of them is for `unused` to tell. Raises CorpusError for a table that has
    changed since.
    """
    found: dict[str, dict[str, Any]] = {}
    for path, size in tables:
        below = f"{folder}/".removeprefix(_above(path)).strip("/")
        with suppress(_BrokenTableError):
            for row in _rows(store, path, size):
                place, _, name = _image_of(row).rpartition("/")
                if place == below and name:
                    fields = {key: value for key, value in row.items() if key != NAME}
                    found[name] = {**found.get(name, {}), **jsonable(fields)}
    return found


def unused(store: Store, path: str, images: Collection[str]) -> list[str]:
    """What can't be used of a table, a line for each reason. images: paths of those that it may tell of."""
    account, columns, taken = Account(), dict[str, None](), 0
    try:
        for number, row in enumerate(_rows(store, path, store.size(path)), 1):
            image = _image_of(row)
            columns |= dict.fromkeys(row if isinstance(row, dict) and not taken else ())
            taken += bool(image)
            if not image:
                account.add(Why.ROW, f"row {number} of {path}")
            elif _above(path) + image not in images:
                account.add(Why.ROW, image)
    except _BrokenTableError as error:
        return [_not_used(path, f"it can't be read ({error})")]
    if taken:
        return account.told()
    has = ", ".join(columns) or "none"
    return [_not_used(path, f"it has no column {NAME!r}, which names a row's image, but {has}")]


def _not_used(path: str, reason: str) -> str:
    return clean_key(f"{path} isn't used: {reason}")


class _BrokenTableError(Exception):
    """What is wrong with a table."""


def _above(path: str) -> str:
    """The folder of a table, with a slash at its end unless it is the root."""
    folder, slash, _ = path.rpartition("/")
    return folder + slash


def _image_of(row: Any) -> str:
    """The path of a row's image from the table's folder; "" where it names none there."""
    name = row.get(NAME) if isinstance(row, dict) else None
    path = posixpath.normpath(name.replace("\\", "/")) if isinstance(name, str) and name else ""
    return "" if path.startswith(("/", "..")) or path == "." else path


def _rows(store: Store, path: str, size: int) -> Iterable[Any]:
    if size > _LARGEST:
        raise CorpusError(f"{path} has {size:,} bytes, more than {_LARGEST:,}: write a table for each folder")
    data = read_as_listed(store, path, size, grows=True)
    try:
        if path.endswith(".jsonl"):
            return _json_lines(decoded(data))
        return _of_table(_csv(decoded(data)) if path.endswith(".csv") else _parquet(data))
    except (ValueError, OSError, Error) as error:  # as those of pyarrow are, too
        raise _BrokenTableError(str(error)) from None


def _json_lines(text: str) -> Iterator[Any]:
    for line in text.split("\n"):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield None


def _csv(text: str) -> pa.Table:
    """All values as the texts that they are: a caption `007` is no number."""
    import pyarrow as pa
    from pyarrow import csv

    parsing = csv.ParseOptions(newlines_in_values=True)
    names = next(reader(io.StringIO(text, newline="")), [])
    texts = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    return csv.read_csv(io.BytesIO(text.encode()), csv.ReadOptions(use_threads=False), parsing, texts)


def _parquet(data: bytes) -> pa.Table:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(data))
    return file.read([column.name for column in file.schema_arrow if is_plain(column.type)], use_threads=False)


def _of_table(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(1024):
        yield from batch.to_pylist()
