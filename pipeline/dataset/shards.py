"""Shards: one unit of one modality as bytes, or several (`merged.py`). Tokens are Parquet, labels WebDataset tars.

A shard is a pure function of its rows, and carries its own checksum: the SHA-256 of the whole file with the 64
hex digits of the checksum itself taken as zeros (as IP and TCP headers do it), so that every bit is covered without
a second object that could be lost or lag behind.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np

from ...tokenizers.contract.token_spec import TokenSpec
from ..storage.errors import StorageError
from .layout import TOKENS
from .shard_meta import BLANK, CHECKSUM, BrokenShardError, Part, ShardMeta, content_digest, meta_of, parts_of, place_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_HEAD = 2**16
"""Bytes that are read at once of a tar's head."""
NULL = "null"
_COLUMNS = ("key", "view", "tokens")
_ZSTD_LEVEL = 3


@dataclass(frozen=True)
class RowKeys:
    """What every modality's shard of a unit has in common: one row per sample and view, in the corpus' order."""

    keys: list[str]
    views: list[int]

    @classmethod
    def of(cls, keys: Sequence[str], per_sample: int) -> RowKeys:
        """The rows of samples that have so many each: their views, or 1 for labels of whole images."""
        return cls([key for key in keys for _ in range(per_sample)], list(range(per_sample)) * len(keys))

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class TokenShard:
    """tokens: one array per row (dtype of the shard), None where the sample lacks the modality."""

    meta: ShardMeta
    rows: RowKeys
    tokens: list[np.ndarray | None]


@dataclass(frozen=True)
class LabelShard:
    """labels: encoded by the modality's kind, one per row, None where the sample lacks the modality."""

    meta: ShardMeta
    rows: RowKeys
    labels: list[bytes | None]


def write_tokens(rows: RowKeys, tokens: Sequence[np.ndarray | None], spec: TokenSpec, meta: ShardMeta) -> bytes:
    """A Parquet file: key (string), view (uint8), tokens (list of uint16 or uint32; of fixed size when it is fixed)."""
    import pyarrow as pa

    values = pa.from_numpy_dtype(spec.dtype)
    table = pa.table(
        {
            "key": pa.array(rows.keys, pa.string()),
            "view": pa.array(rows.views, pa.uint8()),
            "tokens": _token_array(tokens, values, spec),
        }
    )
    return write_tables([table], meta.pairs(rows.keys, rows.views))


def write_tables(tables: Sequence[pa.Table], pairs: Mapping[str, str]) -> bytes:
    """A sealed Parquet file of tables of one schema, at least one, each that has rows a row group."""
    import pyarrow.parquet as pq

    buffer, schema = io.BytesIO(), tables[0].schema
    with pq.ParquetWriter(buffer, schema, compression="zstd", compression_level=_ZSTD_LEVEL) as writer:
        for table in filter(len, tables):
            writer.write_table(table, row_group_size=len(table))
        writer.add_key_value_metadata(dict(pairs))
    return _seal(buffer.getvalue())


def _token_array(tokens: Sequence[np.ndarray | None], values: pa.DataType, spec: TokenSpec) -> pa.Array:
    import pyarrow as pa

    lengths = [0 if ids is None else len(ids) for ids in tokens]
    missing = np.array([ids is None for ids in tokens], dtype=bool)
    if spec.length is not None:
        wrong = next((n for n, gone in zip(lengths, missing, strict=True) if not gone and n != spec.length), None)
        if wrong is not None:
            raise ValueError(f"the tokenizer gave {wrong} tokens where its spec says {spec.length}")
        filled = [np.zeros(spec.length, spec.dtype) if ids is None else ids.astype(spec.dtype) for ids in tokens]
        flat = pa.array(np.concatenate(filled) if filled else np.empty(0, spec.dtype), values)
        return pa.FixedSizeListArray.from_arrays(flat, spec.length, mask=pa.array(missing))
    present = [ids.astype(spec.dtype) for ids in tokens if ids is not None]
    flat = pa.array(np.concatenate(present) if present else np.empty(0, spec.dtype), values)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), pa.int32())
    return pa.ListArray.from_arrays(offsets, flat, mask=pa.array(missing))


def read_tokens(data: bytes, unit: str = "") -> TokenShard:
    """The rows of a token shard. unit: the name of that whose rows are wanted, where the shard holds several. Raises
    BrokenShardError; flipped bits are for `verify_checksum`."""
    meta, table = read_token_table(data, unit=unit)
    return TokenShard(meta, RowKeys(table["key"].to_pylist(), table["view"].to_pylist()), token_arrays(table))


def read_token_table(
    source: bytes | io.RawIOBase, columns: Sequence[str] | None = None, unit: str = ""
) -> tuple[ShardMeta, pa.Table]:
    """A token shard as Arrow has it: key, view, tokens, or some of these alone. unit: as of `read_tokens`. Raises
    BrokenShardError."""
    pairs, part, table = _read_rows(source, list(columns or _COLUMNS), unit)
    return meta_of(pairs, part), table


def read_token_column(source: bytes | io.RawIOBase, unit: str = "") -> tuple[ShardMeta, str, pa.Array]:
    """What a token shard says of itself, the digest of its rows, and the tokens of each. unit: as of `read_tokens`.
    Raises BrokenShardError."""
    import pyarrow as pa

    pairs, part, table = _read_rows(source, ["tokens"], unit)
    digest = part.digest if part else pairs.get("tokenloom.rows", "")
    return (
        meta_of(pairs, part),
        digest,
        pa.concat_arrays(table["tokens"].chunks or [pa.array([], table.schema[0].type)]),
    )


def _read_rows(
    source: bytes | io.RawIOBase, columns: list[str], unit: str
) -> tuple[dict[str, str], Part | None, pa.Table]:
    """What the shard carries beside its rows, which part of a merged one the unit is, and columns of its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without Arrow's threads: one may drop what it holds of a file of Python's after Python has ended, and aborts.
        file = pq.ParquetFile(pa.BufferReader(source) if isinstance(source, bytes) else source, pre_buffer=False)
        pairs = _parquet_pairs(file)
        place = place_of(pairs, unit)
        if place is None:
            table, part = file.read(columns=columns, use_threads=False), None
        else:
            part, table = parts_of(pairs)[place], file.schema_arrow.empty_table().select(columns)
            if part.rows:
                group = sum(1 for before in parts_of(pairs)[:place] if before.rows)
                table = _row_group(file, source, group, columns)
    except (StorageError, FileNotFoundError):
        raise
    except (pa.ArrowException, KeyError, OSError, UnicodeDecodeError) as error:
        raise BrokenShardError(f"it isn't a readable Parquet file: {error}") from None
    if table.column_names != columns:
        raise BrokenShardError(f"its columns are {table.column_names}, not key, view and tokens")
    if part and "tokens" in columns:
        part.check(content_digest(unit, part.digest, *token_content(table["tokens"])))
    return pairs, part, table


def _row_group(file: pq.ParquetFile, source: bytes | io.RawIOBase, group: int, columns: list[str]) -> pa.Table:
    """One row group; of a source that is read by ranges, by one."""
    import pyarrow.parquet as pq

    if not isinstance(source, bytes):
        told = file.metadata.row_group(group)
        size = sum(told.column(at).total_compressed_size for at in range(told.num_columns))
        file = pq.ParquetFile(io.BufferedReader(source, size), metadata=file.metadata, pre_buffer=False)
    return file.read_row_group(group, columns=columns, use_threads=False)


def read_metas(source: io.RawIOBase | io.BufferedIOBase, extension: str) -> dict[str, ShardMeta]:
    """What a shard in a file says of itself, read by ranges, by the names of its units. Raises BrokenShardError."""
    pairs = read_pairs(source, extension)
    metas = [meta_of(pairs, part) for part in parts_of(pairs) or [None]]
    return {meta.unit: meta for meta in metas}


def read_pairs(source: io.RawIOBase | io.BufferedIOBase, extension: str) -> dict[str, str]:
    """What a shard in a file carries beside its rows, read by ranges. Raises BrokenShardError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if extension == TOKENS:
            return _parquet_pairs(pq.ParquetFile(source))
        with tarfile.open(fileobj=source, mode="r:") as tar:  # type: ignore[arg-type] - any readable file does
            return dict(tar.pax_headers)
    except (StorageError, FileNotFoundError):
        raise
    except (pa.ArrowException, tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise BrokenShardError(f"it isn't readable: {error}") from None


def _parquet_pairs(file: pq.ParquetFile) -> dict[str, str]:
    return {k.decode(): v.decode() for k, v in (file.metadata.metadata or {}).items() if k != b"ARROW:schema"}


def token_content(tokens: pa.ChunkedArray) -> list[bytes]:
    """What tells a column of tokens from any other, however Parquet has it: type, lengths (-1 where there are none),
    ids."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = pc.call_function("list_value_length", [tokens]).cast(pa.int32()).fill_null(-1)
    ids = pc.call_function("list_flatten", [tokens])
    return [str(ids.type).encode(), lengths.to_numpy().tobytes(), ids.to_numpy().tobytes()]


def token_arrays(table: pa.Table) -> list[np.ndarray | None]:
    """The tokens of each row of a token shard, None where there are none."""
    import pyarrow as pa

    column = table["tokens"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    return [None if not item.is_valid else item.values.to_numpy(zero_copy_only=False) for item in column]


def write_labels(rows: RowKeys, labels: Sequence[bytes | None], extension: str, meta: ShardMeta) -> bytes:
    """A WebDataset tar: `<key>.<extension>` for view 0, `<key>.v1.<extension>` for further views.

    A missing label is an empty member `<key>.null`, so that every modality's tar has the same keys in the same order.
    """
    return write_members([label_members(rows, labels, extension)], meta.pairs(rows.keys, rows.views))


def label_members(rows: RowKeys, labels: Sequence[bytes | None], extension: str) -> bytes:
    """The members of a tar that hold the labels, and nothing before or behind them."""
    buffer = io.BytesIO()
    tar = tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closing adds an end
    for key, view, label in zip(rows.keys, rows.views, labels, strict=True):
        name = member_name(key, view, NULL if label is None else extension)
        info = tarfile.TarInfo(name)
        info.size = len(label or b"")
        tar.addfile(info, io.BytesIO(label or b""))
    return buffer.getvalue()


def write_members(members: Sequence[bytes], pairs: Mapping[str, str]) -> bytes:
    """A sealed tar of members that `label_members` gave."""
    head = io.BytesIO()
    tarfile.open(fileobj=head, mode="w", format=tarfile.PAX_FORMAT, pax_headers=dict(pairs))  # noqa: SIM115 - as above
    if not any(members):
        # Readers refuse an archive that has a header for all members and no member; they pass over folders.
        folder = tarfile.TarInfo("empty")
        folder.type = tarfile.DIRTYPE
        members = [folder.tobuf(tarfile.PAX_FORMAT)]
    content = b"".join((head.getvalue(), *members))
    end = -(len(content) + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE + 2 * tarfile.BLOCKSIZE
    return _seal(content + bytes(end))


def read_labels(source: bytes | io.RawIOBase, unit: str = "") -> LabelShard:
    """The rows of a label shard. unit: as of `read_tokens`; of a file that holds several units its members alone are
    read. Raises BrokenShardError."""
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else io.BufferedReader(source, _HEAD)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            pairs = dict(tar.pax_headers)
        place = place_of(pairs, unit)
        part = None if place is None else parts_of(pairs)[place]
        file.seek(0)
        if part is not None:
            before = sum(other.size for other in parts_of(pairs)[:place])
            file.seek(_head_size(file.read(tarfile.BLOCKSIZE)) + before)
            members = file.read(part.size)
            part.check(content_digest(unit, part.digest, members))
            file = io.BytesIO(members)
        rows = list(_members(file)) if part is None or part.size else []
    except (tarfile.TarError, ValueError, EOFError) as error:
        if isinstance(error, BrokenShardError):
            raise
        raise BrokenShardError(f"it isn't a readable tar: {error}") from None
    keys, views, labels = [key for key, _, _ in rows], [view for _, view, _ in rows], [label for *_, label in rows]
    return LabelShard(meta_of(pairs, part), RowKeys(keys, views), labels)


def _members(file: IO[bytes]) -> Iterator[tuple[str, int, bytes | None]]:
    """Key, view and label of each member of a tar."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for info in filter(tarfile.TarInfo.isreg, tar):
            key, view, extension = split_member_name(info.name)
            member = tar.extractfile(info)
            yield key, view, None if extension == NULL or member is None else member.read()


def _head_size(block: bytes) -> int:
    """Bytes of the header for all members, by its first block."""
    size = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape").size
    return tarfile.BLOCKSIZE + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def member_name(key: str, view: int, extension: str) -> str:
    """A tar member's name. Dots in keys are escaped as %2E, since WebDataset ends a key at its first dot."""
    stem = key.replace("%", "%25").replace(".", "%2E")
    return f"{stem}.{extension}" if view == 0 else f"{stem}.v{view}.{extension}"


def split_member_name(name: str) -> tuple[str, int, str]:
    """Key, view and extension of a member that `member_name` named."""
    stem, *middle, extension = name.split(".")
    return stem.replace("%2E", ".").replace("%25", "%"), int(middle[0][1:]) if middle else 0, extension


def checksum(data: bytes) -> tuple[str, str]:
    """(the checksum that a shard carries, the one that its bytes have). Raises BrokenShardError if it carries none."""
    start = _checksum_at(data)
    carried = data[start : start + 64].decode("ascii", "replace")
    return carried, _digest(data, start)


def verify_checksum(data: bytes) -> None:
    """Raises BrokenShardError unless the shard's bytes are those that were written."""
    carried, actual = checksum(data)
    if carried != actual:
        raise BrokenShardError(f"its checksum is {actual[:12]}..., not {carried[:12]}... as when it was written")


def _seal(data: bytes) -> bytes:
    start = _checksum_at(data)
    return b"".join((data[:start], _digest(data, start).encode(), data[start + 64 :]))


def _digest(data: bytes, start: int) -> str:
    digest = hashlib.sha256(memoryview(data)[:start])
    digest.update(BLANK)
    digest.update(memoryview(data)[start + 64 :])
    return digest.hexdigest()


def _checksum_at(data: bytes) -> int:
    """Where the 64 hex digits begin: after the name and "=" in a tar's first header, after the name and the
    string's one-byte field header and length (Thrift compact protocol) in a Parquet footer."""
    name = CHECKSUM.encode()
    if data[:4] == b"PAR1":
        at = data.rfind(name)
        start = at + len(name) + 2
    else:
        at = data.find(name + b"=", 0, 4096)
        start = at + len(name) + 1
    if at < 0 or start + 64 > len(data):
        raise BrokenShardError("it carries no checksum: cut off, or not a shard of tokenloom")
    return start
