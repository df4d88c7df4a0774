"""Tables beside images, as Hugging Face's `imagefolder` has them: a row for each image, named under `file_name`.

metadata.jsonl, metadata.csv or metadata.parquet hold for their folder and those below; names are relative to it.
"""

from __future__ import annotations

import io
import json
import posixpath
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from csv import Error, reader
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from ..storage.store import Entry, Store
from .left_out import Account, Why
from .names import clean_key
from .parquet import is_plain
from .samples import BadSample, CorpusError, changed_since, decoded, jsonable, read_as_listed

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "file_name"

_LARGEST = 2**30
_FEW_ROWS = 100_000
_BATCH = 8192
_MOST_KEPT = 2**28
"""Bytes of tables that a process keeps, since each is asked for once for every few thousand images."""


def fields_by_name(
    store: Store, tables: Sequence[tuple[str, int]], folder: str, names: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """What the tables say of files directly in a folder, by their names; of several the last holds.

    tables: paths and bytes. What can't be used of them is for `unused` to tell. Raises CorpusError for a table that has
    changed since.
    """
    found: dict[str, dict[str, Any]] = {}
    for path, size in tables:
        below = f"{folder}/".removeprefix(_above(path)).strip("/")
        with suppress(_BrokenTableError):
            for image, fields in _table(store, path, size).told_of(posixpath.join(below, name) for name in names):
                name = posixpath.basename(image)
                found[name] = {**found.get(name, {}), **fields}
    return found


def unused(store: Store, path: str, images: Collection[str]) -> list[str]:
    """What can't be used of a table, a line for each reason. images: paths of those that it may tell of."""
    account, columns, number = Account(), dict[str, None](), 0
    try:
        for number, row in enumerate(_table(store, path, store.size(path)).values(), 1):
            columns |= dict.fromkeys(row if isinstance(row, dict) and NAME not in columns else ())
            told = _told(row)
            if told is None:
                account.add(Why.ROW, f"row {number} of {path}")
            elif _above(path) + told[0] not in images:
                account.add(Why.ROW, told[0])
    except _BrokenTableError as error:
        return [_not_used(path, f"it can't be read ({error})")]
    if NAME in columns:
        return account.told()
    has = ", ".join(columns) or "none"
    problem = f"no column {NAME!r}, which names a row's image, but {has}" if number else "no rows"
    return [_not_used(path, f"it has {problem}")]


class _BrokenTableError(Exception):
    """What is wrong with a table."""


@dataclass(frozen=True)
class _Table:
    """A table as it was read. is_json: whether its rows are lines of JSON, in a column of their own.

    paths: those of the rows' images from the table's folder, as UTF-8, sorted, "" for none. numbers: of their rows.
    """

    rows: pa.Table
    is_json: bool
    paths: pa.BinaryArray
    numbers: pa.UInt64Array

    @classmethod
    def of(cls, rows: pa.Table, is_json: bool) -> _Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        named = rows if is_json else rows.select([at for at, name in enumerate(rows.column_names) if name == NAME])
        paths = pa.array([_encoded(_image_of(row)) for row in _values(named, is_json)], pa.binary())
        numbers = pc.sort_indices(paths)  # type: ignore[attr-defined] - made when it is imported
        return cls(rows, is_json, paths.take(numbers), numbers)

    @property
    def nbytes(self) -> int:
        return self.rows.nbytes + self.paths.nbytes + self.numbers.nbytes

    def values(self) -> Iterator[Any]:
        """The rows as JSON has them; None for one that can't be read."""
        return _values(self.rows, self.is_json)

    def told_of(self, images: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The fields of those images, by their paths from the table's folder, as often as rows tell of them."""
        import pyarrow as pa

        numbers = pa.array([number for image in images for number in self._numbers(_encoded(image))], pa.int64())
        yield from filter(None, map(_told, _values(self.rows.take(numbers), self.is_json)))

    def _numbers(self, path: bytes) -> Iterator[int]:
        at = bisect_left(self.paths, path, key=lambda one: one.as_py())
        while at < len(self.paths) and self.paths[at].as_py() == path:
            yield self.numbers[at].as_py()
            at += 1


_kept: dict[tuple[str, Entry], _Table | str] = {}
"""The tables that were asked for last, by their store and how they were then; or what is wrong with one."""
_lock = Lock()


def _table(store: Store, path: str, size: int) -> _Table:
    """The table, parsed once for as long as it is the same; of more than _MOST_KEPT bytes, each time."""
    if size > _LARGEST:
        raise CorpusError(f"{path} has {size:,} bytes, more than {_LARGEST:,}: write a table for each folder")
    try:
        now = store.stat(path)
    except FileNotFoundError:
        raise changed_since(f"{store.url}/{path}") from None
    if now.size < size:
        raise changed_since(f"{store.url}/{path}")
    with _lock:
        table = _kept.pop((store.url, now), None) or _read(store, now)
        _kept[store.url, now] = table  # the last
        while sum(one.nbytes for one in _kept.values() if isinstance(one, _Table)) > _MOST_KEPT:
            del _kept[next(iter(_kept))]
    if isinstance(table, str):
        raise _BrokenTableError(table)
    return table


def _read(store: Store, now: Entry) -> _Table | str:
    """The table, or what is wrong with it."""
    path, data = now.name, read_as_listed(store, now.name, now.size, grows=True)
    try:
        read = _json_lines if path.endswith(".jsonl") else _csv if path.endswith(".csv") else _parquet
        return _Table.of(read(data), path.endswith(".jsonl"))
    except (ValueError, OSError, Error) as error:  # as those of pyarrow are, too
        return str(error) or type(error).__name__


def _json_lines(data: bytes) -> pa.Table:
    import pyarrow as pa

    return pa.table({"line": pa.array([line for line in decoded(data).split("\n") if line.strip()], pa.string())})


def _csv(data: bytes) -> pa.Table:
    """All values as the texts that they are: a caption `007` is no number."""
    import pyarrow as pa
    from pyarrow import csv

    text = decoded(data)
    parsing = csv.ParseOptions(newlines_in_values=True)
    names = next(reader(io.StringIO(text, newline="")), [])
    texts = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    return csv.read_csv(io.BytesIO(text.encode()), csv.ReadOptions(use_threads=False), parsing, texts)


def _parquet(data: bytes) -> pa.Table:
    """Its few bytes may stand for any number of rows that are alike, each of which costs as much as another."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(data), pre_buffer=False)
    rows = file.metadata.num_rows
    if rows > max(len(data), _FEW_ROWS):
        raise ValueError(f"{rows:,} rows in {len(data):,} bytes can't each name an image")
    names = [column.name for column in file.schema_arrow if is_plain(column.type)]
    batches, size = [], 0
    for batch in file.iter_batches(_BATCH, columns=names, use_threads=False):
        batches.append(batch)
        size += batch.nbytes
        if size > _LARGEST:
            raise ValueError(f"it comes to more than {_LARGEST:,} bytes: write a table for each folder")
    return pa.Table.from_batches(batches) if batches else file.read(names)


def _values(rows: pa.Table, is_json: bool) -> Iterator[Any]:
    for batch in rows.to_batches(1024):
        try:
            values = batch.to_pylist()
        except UnicodeDecodeError:
            values = [_value(batch.slice(index, 1)) for index in range(batch.num_rows)]
        yield from (_parsed(value["line"]) for value in values) if is_json else values


def _value(row: pa.RecordBatch) -> Any:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError:
        return None


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _told(row: Any) -> tuple[str, dict[str, Any]] | None:
    """The path of a row's image, and its fields; None where it can't be used."""
    image = _image_of(row)
    try:
        return (image, jsonable({name: value for name, value in row.items() if name != NAME})) if image else None
    except BadSample:
        return None


def _image_of(row: Any) -> str:
    """The path of a row's image from the table's folder; "" where it names none there."""
    name = row.get(NAME) if isinstance(row, dict) else None
    path = posixpath.normpath(name.replace("\\", "/")) if isinstance(name, str) and name else ""
    return "" if path.startswith(("/", "..")) or path == "." else path


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogatepass")


def _above(path: str) -> str:
    """The folder of a table, with a slash at its end unless it is the root."""
    folder, slash, _ = path.rpartition("/")
    return folder + slash


def _not_used(path: str, reason: str) -> str:
    return clean_key(f"{path} isn't used: {reason}")
