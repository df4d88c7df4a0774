"""Tables beside images, as Hugging Face's `imagefolder` has them: a row for each image, named under `file_name`.

metadata.jsonl, metadata.csv or metadata.parquet hold for their folder and those below; names are relative to it.
"""

from __future__ import annotations

import io
import json
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..storage.store import Store
from .parquet import is_plain
from .samples import CorpusError, decoded, jsonable

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "file_name"

_LARGEST = 2**30


def fields_by_name(
    store: Store, tables: Sequence[str], folder: str, problems: list[str] | None = None
) -> dict[str, dict[str, Any]]:
    """What the tables say of the files directly in a folder, by their names; of several the last holds.

    problems: to which what can't be used of the tables is added.
    """
    found: dict[str, dict[str, Any]] = {}
    problems = [] if problems is None else problems
    for path in tables:
        above, _, name = path.rpartition("/")
        below = posixpath.relpath(folder or ".", above or ".")
        try:
            for number, row in enumerate(_rows(store, path), 1):
                if not isinstance(row, dict) or not isinstance(row.get(NAME), str):
                    problems.append(f"row {number} of {name}")
                    continue
                place, _, file = posixpath.normpath(row[NAME].replace("\\", "/")).rpartition("/")
                if (place or ".") == below:
                    fields = {key: value for key, value in row.items() if key != NAME}
                    found[file] = {**found.get(file, {}), **jsonable(fields)}
        except (ValueError, OSError) as error:
            if isinstance(error, CorpusError) or not isinstance(error, ValueError):
                raise
            problems.append(f"{name} ({error})")
    return found


def unusable(store: Store, path: str) -> str | None:
    """Why nothing can be taken of a table; None where something can."""
    try:
        first = next(iter(_rows(store, path)), {})
    except CorpusError:
        raise
    except ValueError as error:
        return f"{path} isn't used: it can't be read ({error})"
    columns = list(first) if isinstance(first, dict) else []
    if NAME in columns:
        return None
    has = ", ".join(columns) or "none"
    return f"{path} isn't used: it has no column {NAME!r}, which names a row's image, but {has}"


def _rows(store: Store, path: str) -> Iterable[Any]:
    if (size := store.size(path)) > _LARGEST:
        raise CorpusError(
            f"{path} has {size:,} bytes, more than the {_LARGEST:,} of a table: write one for each folder"
        )
    data = store.read(path)
    if path.endswith(".jsonl"):
        return _json_lines(data)
    return _of_table(_csv(data) if path.endswith(".csv") else _parquet(data))


def _json_lines(data: bytes) -> Iterator[Any]:
    for line in decoded(data).split("\n"):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield None


def _csv(data: bytes) -> pa.Table:
    from pyarrow import csv

    text = decoded(data).encode()
    return csv.read_csv(io.BytesIO(text), csv.ReadOptions(use_threads=False), csv.ParseOptions(newlines_in_values=True))


def _parquet(data: bytes) -> pa.Table:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(io.BytesIO(data))
    return file.read([column.name for column in file.schema_arrow if is_plain(column.type)], use_threads=False)


def _of_table(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows; dates, which CSV may hold, as texts."""
    import pyarrow as pa

    columns = [column if is_plain(column.type) else column.cast(pa.string()) for column in table.columns]
    for batch in pa.Table.from_arrays(columns, table.column_names).to_batches(1024):
        yield from batch.to_pylist()
