"""Parquet with one image a row, as bytes or as Hugging Face's struct of `bytes` and `path`, or one text; a position is
a row."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..storage.errors import StorageError
from ..storage.windows import WINDOW, WindowFile
from .left_out import Why
from .samples import (
    LARGEST_IMAGE,
    BadSample,
    CorpusError,
    Item,
    Rejection,
    Sample,
    Selection,
    Stretch,
    check_key,
    check_size,
    jsonable,
    rejection,
)
from .texts import text_sample

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes")
_KEY_COLUMNS = ("key", "__key__", "id")
_STATUS, _SUCCESS = ("status", "error_message"), "success"
"""Columns in which img2dataset says what became of a row's image, and what the first says where it is there."""
_PATHS_ALONE = "There are paths without bytes: write the images themselves into it, or give their folder as the corpus"
_OTHER_COLUMN = "Write `image: COLUMN` under `corpus`, as --set corpus.image=COLUMN does"
_GAP = 2**18
"""Bytes of columns that nobody wants, which cost less than a request of their own for what lies behind them."""
_ROWS = 16
"""Rows decoded at a time; few, since a row holds an image."""


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. image: None in a corpus of texts, whose text is one of the fields. image_path: the name
    to read, `image.bytes` in a struct. key: None for row numbers. status: what became of the image, where the file says
    so."""

    image: str | None
    image_path: str | None
    key: str | None
    fields: tuple[str, ...]
    status: tuple[str, ...] = ()

    @property
    def read(self) -> list[str]:
        """All that is read."""
        return [name for name in (self.image_path, *self.fields, *self.status, self.key) if name]


def open_parquet(source: WindowFile) -> pq.ParquetFile:
    """The file for reading column by column, a few MiB at a time. Raises what pyarrow raises for other files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(source, buffer_size=WINDOW, pre_buffer=False)
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid(f"the name of a column is not UTF-8: {error}") from None


def find_columns(schema: pa.Schema, url: str, selection: Selection) -> Columns:
    """The columns to read of the file at `url`. Raises CorpusError where the recipe names others than there are."""
    key, wanted = selection.key, selection.fields
    has = f"{url} has the columns {', '.join(f'{column.name} ({column.type})' for column in schema) or 'none'}"
    chosen, path = _image_column(schema, has, selection) if selection.text is None else (None, None)
    if selection.text is not None:
        _check_text_column(schema, has, selection.text)
    keys = [column.name for column in schema if _is_key(column.type)]
    if key is not None and key not in keys:
        raise CorpusError(
            f"there is no key column {key!r} of text or whole numbers: {has}. Correct `key:` under `corpus` in the "
            f"recipe, or leave it out to number the rows"
        )
    plain = [column.name for column in schema if is_plain(column.type)]
    missing = sorted(set(wanted or ()) - set(plain))
    if missing:
        raise CorpusError(
            f"no column for the fields {', '.join(missing)}, of a type that JSON has: {has}. Correct `fields:` under "
            f"`corpus` in the recipe"
        )
    if selection.text is None:
        key = key or next((name for name in _KEY_COLUMNS if name in keys), None)
    kept = [selection.text] if wanted is not None and selection.text else []
    fields = tuple(name for name in plain if name not in (key, chosen) and (wanted is None or name in (*wanted, *kept)))
    status = tuple(name for name in _STATUS if _STATUS[0] in plain and name in plain)
    named = Counter(column.name for column in schema)
    if twice := next((name for name in (chosen, key, *fields, *status) if named[name or ""] > 1), None):
        raise CorpusError(
            f"several columns are named {twice!r}: {has}. Rename them; or name the others that are to be kept, as "
            f"`fields:` under `corpus`"
        )
    return Columns(chosen, path, key, fields, status)


def _check_text_column(schema: pa.Schema, has: str, name: str) -> None:
    """Raises CorpusError where the column isn't there, or isn't one of texts. has: what there is, in words."""
    of_name = [column.type for column in schema if column.name == name]
    if any(map(_is_string, of_name)):
        return
    other = "Write `text: COLUMN` under `corpus`, as --set corpus.text=COLUMN does"
    if not of_name:
        raise CorpusError(f"there is no column {name!r} of texts: {has}. {other}")
    way_out = f"Cast it to strings, as pyarrow's cast(pyarrow.string()) does. Or {other[0].lower()}{other[1:]}"
    holds, way_out = ("bytes", way_out) if _is_binary(of_name[0]) else (str(of_name[0]), other)
    raise CorpusError(f"the column {name!r} holds {holds}, not texts: {has}. {way_out}")


def _image_column(schema: pa.Schema, has: str, selection: Selection) -> tuple[str, str]:
    """The column of the image, and what to read of it. has: what there is, in words."""
    readable = {column.name: path for column in schema if (path := _image_path(column))}
    chosen = selection.image or next((name for name in _IMAGE_COLUMNS if name in readable), None)
    if chosen is None:
        way_out = _PATHS_ALONE if any(map(_has_paths, schema)) else _OTHER_COLUMN
        raise CorpusError(f"no column looks like the image: {has}. {way_out}")
    if chosen not in readable:
        what = "has no bytes" if chosen in schema.names else "is not there"
        of_paths = any(_has_paths(column) for column in schema if column.name == chosen)
        way_out = _PATHS_ALONE if of_paths else _OTHER_COLUMN
        raise CorpusError(f"the image column {chosen!r} {what}: {has}. {way_out}")
    return chosen, readable[chosen]


def read_parquet(stretch: Stretch, selection: Selection) -> Iterator[Item]:
    """The rows of a stretch of a Parquet file, without a look at the row groups before or behind.

    What can't be decoded is lost to the end of its row group: a rejection with an empty key.
    """
    import pyarrow as pa

    path, start = stretch.path, stretch.start
    stop = sys.maxsize if stretch.stop is None else stretch.stop
    try:
        source = WindowFile(stretch.store, stretch.path, stretch.size)
        file = open_parquet(source)
        columns = find_columns(file.schema_arrow, path, selection)
        groups = list(_groups(file, start, stop))
        source.wanted = _spans(file, [group for group, *_ in groups], columns)
    except (StorageError, FileNotFoundError):
        raise
    except CorpusError as error:
        yield Item(start, 0, Rejection("", str(error), "NoColumn"))
        return
    except (pa.ArrowException, OSError) as error:
        yield Item(start, 0, Rejection("", f"{path} is broken, or no Parquet file: {error}", "BrokenShard"))
        return
    for group, first, end in groups:
        yield from _read_group(file, group, first, max(start, first), min(end, stop), columns, stretch, selection)


def _groups(file: pq.ParquetFile, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The row groups that have some of the rows [start, stop), each with its first row and that behind its last."""
    first = 0
    for group in range(file.num_row_groups):
        end = first + file.metadata.row_group(group).num_rows
        if start < end and first < stop:
            yield group, first, end
        first = end


def _spans(file: pq.ParquetFile, groups: Sequence[int], columns: Columns) -> list[tuple[int, int]]:
    """Where the columns' bytes lie in the file, from and to, in order. What has no more than _GAP between is one."""
    paths = [file.schema.column(at).path for at in range(len(file.schema.names))]
    wanted = [at for at, path in enumerate(paths) if any(f"{path}.".startswith(f"{name}.") for name in columns.read)]
    spans: list[tuple[int, int]] = []
    for begin, end in sorted(_place(file.metadata.row_group(group).column(at)) for group in groups for at in wanted):
        if spans and begin <= spans[-1][1] + _GAP:
            begin, end = spans[-1][0], max(end, spans.pop()[1])
        spans.append((begin, end))
    return spans


def _place(chunk: pq.ColumnChunkMetaData) -> tuple[int, int]:
    begin = min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset)
    return begin, begin + chunk.total_compressed_size


def _read_group(
    file: pq.ParquetFile,
    group: int,
    first: int,
    start: int,
    stop: int,
    columns: Columns,
    stretch: Stretch,
    selection: Selection,
) -> Iterator[Item]:
    """The rows [start, stop) of a row group whose first row is `first`. Batches begin there, wherever `start` is."""
    import pyarrow as pa

    row = first
    try:
        for batch in file.iter_batches(_ROWS, [group], columns.read, use_threads=False):
            for index in range(max(0, start - row), min(batch.num_rows, stop - row)):
                if columns.image is None:
                    yield _text_item(batch, index, row + index, columns, stretch.path, selection)
                else:
                    yield _image_item(batch, index, row + index, columns, stretch.path)
            row += batch.num_rows
            if row >= stop:
                return
    except (StorageError, FileNotFoundError):
        raise
    except (pa.ArrowException, OSError) as error:
        reason = f"{stretch.path}: row group {group} is broken, and its rows from {row} on can't be read: {error}"
        yield Item(max(row, start), 0, Rejection("", reason, "BrokenShard"))


def _text_item(batch: pa.RecordBatch, index: int, row: int, columns: Columns, path: str, selection: Selection) -> Item:
    """One row as a sample without an image. Its size is the text's."""
    size, place = 0, f"{path}/{row:012d}"
    names = dict.fromkeys((selection.text, *columns.fields, columns.key))  # the text first: all else may be broken
    values: dict[str, Any] = {}
    try:
        for name in filter(None, names):
            values[name] = value = batch.column(name)[index].as_py()
            size = len((value or "").encode("utf-8", "surrogatepass")) if name == selection.text else size
        return Item(row, size, text_sample(values, selection, place))
    except UnicodeDecodeError as error:
        return Item(row, size, Rejection(place, f"a text of row {row} is not UTF-8: {error}", "NotText"))
    except BadSample as error:
        return Item(row, size, rejection(place, error))


def _image_item(batch: pa.RecordBatch, index: int, row: int, columns: Columns, path: str) -> Item:
    """One row as a sample. Its size is the image's: texts are small beside it, and may not all have been read."""
    assert columns.image is not None
    data = batch.column(columns.image)[index].as_py()
    data = data.get("bytes") if isinstance(data, dict) else data
    size, key = len(data or b""), f"{path.removesuffix('.parquet')}/{row:09d}"
    try:
        if columns.key is not None:
            value = batch.column(columns.key)[index].as_py()
            key = "" if value is None else str(value)
        check_key(key)
        if data is None:
            status = [batch.column(name)[index].as_py() for name in columns.status]
            if status and status[0] not in (None, _SUCCESS):
                why = ", ".join(str(one) for one in status if one is not None)
                return Item(row, 0, None, [(Why.NOT_DOWNLOADED, f"{key} ({why})")])
            what = "is null" if columns.image == columns.image_path else "has no bytes"
            raise BadSample("NoImage", f"the column {columns.image!r} {what} in row {row}")
        check_size("the image", size, LARGEST_IMAGE)
        fields = {name: jsonable(batch.column(name)[index].as_py()) for name in columns.fields}
    except UnicodeDecodeError as error:
        return Item(row, size, Rejection(key, f"a text of row {row} is not UTF-8: {error}", "NotText"))
    except BadSample as error:
        return Item(row, size, rejection(key, error))
    return Item(row, size, Sample(key, data, fields))


def _image_path(column: pa.Field) -> str | None:
    """What to read of a column for its images; None for one that holds no bytes."""
    import pyarrow as pa

    if _is_binary(column.type):
        return column.name
    if pa.types.is_struct(column.type):
        index = column.type.get_field_index("bytes")
        if index >= 0 and _is_binary(column.type.field(index).type):
            return f"{column.name}.bytes"
    return None


def _has_paths(column: pa.Field) -> bool:
    import pyarrow as pa

    return pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_binary(kind.value_type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_key(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or _is_string(kind)


def _is_string(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_string(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_plain(kind: pa.DataType) -> bool:
    """Whether JSON has the values of the type."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return all(is_plain(kind.field(index).type) for index in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return is_plain(kind.value_type)
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null, _is_string)
    return any(check(kind) for check in checks)
