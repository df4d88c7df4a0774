"""Shards: one unit of one modality as bytes. Tokens are Parquet, labels are WebDataset tars.

A shard is a pure function of its rows, and carries its own checksum: the SHA-256 of the whole file with the 64
hex digits of the checksum itself taken as zeros (as IP and TCP headers do it), so that every bit is covered without
a second object that could be lost or lag behind.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...tokenizers.contract.token_spec import TokenSpec
from ..storage.errors import StorageError
from .layout import TOKENS

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_CHECKSUM = "tokenloom.sha256"
_BLANK = b"0" * 64
NULL = "null"
_COLUMNS = ("key", "view", "tokens")
_ZSTD_LEVEL = 3


class BrokenShardError(ValueError):
    """A shard whose bytes aren't what was written; the message says what is wrong."""


@dataclass(frozen=True)
class ShardMeta:
    """What a shard says of itself.

    generation: of the labels or tokens that it holds. ledger: SHA-256 of the quarantine file that tells why values are
    missing, "" when nothing failed. rejected: the same for the samples that the corpus reader refused.
    """

    unit: str
    modality: str
    generation: str
    ledger: str = ""
    rejected: str = ""

    def pairs(self, keys: Sequence[str], views: Sequence[int]) -> dict[str, str]:
        return {
            "tokenloom.unit": self.unit,
            "tokenloom.modality": self.modality,
            "tokenloom.generation": self.generation,
            "tokenloom.ledger": self.ledger,
            "tokenloom.rejected": self.rejected,
            "tokenloom.rows": rows_digest(keys, views),
            _CHECKSUM: _BLANK.decode(),
        }

    @classmethod
    def from_pairs(cls, pairs: dict[str, str]) -> ShardMeta:
        try:
            names = ("unit", "modality", "generation", "ledger", "rejected")
            return cls(*(pairs[f"tokenloom.{name}"] for name in names))
        except KeyError as error:
            raise BrokenShardError(f"it has no {error.args[0]!r}: not a shard of tokenloom") from None


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


def rows_digest(keys: Sequence[str], views: Sequence[int]) -> str:
    """SHA-256 over keys and views in order: equal in all modalities of a unit, or they are misaligned."""
    digest = hashlib.sha256()
    for key, view in zip(keys, views, strict=True):
        digest.update(f"{len(key.encode())}:{key}:{view};".encode())
    return digest.hexdigest()


def write_tokens(rows: RowKeys, tokens: Sequence[np.ndarray | None], spec: TokenSpec, meta: ShardMeta) -> bytes:
    """A Parquet file: key (string), view (uint8), tokens (list of uint16 or uint32; of fixed size when it is fixed)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = pa.from_numpy_dtype(spec.dtype)
    table = pa.table(
        {
            "key": pa.array(rows.keys, pa.string()),
            "view": pa.array(rows.views, pa.uint8()),
            "tokens": _token_array(tokens, values, spec),
        }
    )
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, table.schema, compression="zstd", compression_level=_ZSTD_LEVEL) as writer:
        writer.write_table(table, row_group_size=max(1, len(rows)))
        writer.add_key_value_metadata(meta.pairs(rows.keys, rows.views))
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


def read_tokens(data: bytes) -> TokenShard:
    """The rows of a token shard. Raises BrokenShardError; flipped bits are for `verify_checksum`."""
    meta, table = read_token_table(data)
    return TokenShard(meta, RowKeys(table["key"].to_pylist(), table["view"].to_pylist()), token_arrays(table))


def read_token_table(source: bytes | io.RawIOBase, columns: Sequence[str] | None = None) -> tuple[ShardMeta, pa.Table]:
    """A token shard as Arrow has it: key, view, tokens, or some of these alone. Raises BrokenShardError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without Arrow's threads: one may drop what it holds of a file of Python's after Python has ended, and aborts.
        file = pq.ParquetFile(io.BytesIO(source) if isinstance(source, bytes) else source, pre_buffer=False)
        table = file.read(columns=columns and list(columns), use_threads=False)
        pairs = _parquet_pairs(file)
    except (StorageError, FileNotFoundError):
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BrokenShardError(f"it isn't a readable Parquet file: {error}") from None
    if table.column_names != list(columns or _COLUMNS):
        raise BrokenShardError(f"its columns are {table.column_names}, not key, view and tokens")
    return ShardMeta.from_pairs(pairs), table


def read_token_column(data: bytes) -> tuple[ShardMeta, str, pa.Array]:
    """What a token shard says of itself, the digest of its rows, and the tokens of each. Raises BrokenShardError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
        if file.schema_arrow.names != list(_COLUMNS):
            raise BrokenShardError(f"its columns are {file.schema_arrow.names}, not key, view and tokens")
        tokens, pairs = file.read(columns=["tokens"], use_threads=False)["tokens"], _parquet_pairs(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BrokenShardError(f"it isn't a readable Parquet file: {error}") from None
    chunks = tokens.chunks or [pa.array([], tokens.type)]
    return ShardMeta.from_pairs(pairs), pairs.get("tokenloom.rows", ""), pa.concat_arrays(chunks)


def read_meta(source: io.RawIOBase | io.BufferedIOBase, extension: str) -> ShardMeta:
    """What a shard in a file says of itself, read by ranges. Raises BrokenShardError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if extension == TOKENS:
            return ShardMeta.from_pairs(_parquet_pairs(pq.ParquetFile(source)))
        with tarfile.open(fileobj=source, mode="r:") as tar:  # type: ignore[arg-type] - any readable file does
            return ShardMeta.from_pairs(dict(tar.pax_headers))
    except (StorageError, FileNotFoundError):
        raise
    except (pa.ArrowException, tarfile.TarError, OSError, ValueError, EOFError) as error:
        if isinstance(error, BrokenShardError):
            raise
        raise BrokenShardError(f"it isn't readable: {error}") from None


def _parquet_pairs(file: pq.ParquetFile) -> dict[str, str]:
    return {k.decode(): v.decode() for k, v in (file.metadata.metadata or {}).items() if k != b"ARROW:schema"}


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
    buffer = io.BytesIO()
    pairs = meta.pairs(rows.keys, rows.views)
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers=pairs) as tar:
        for key, view, label in zip(rows.keys, rows.views, labels, strict=True):
            name = member_name(key, view, NULL if label is None else extension)
            info = tarfile.TarInfo(name)
            info.size = len(label or b"")
            tar.addfile(info, io.BytesIO(label or b""))
        if not rows.keys:
            # Readers refuse an archive that has a header for all members and no member; they pass over folders.
            folder = tarfile.TarInfo("empty")
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
    return _seal(buffer.getvalue())


def read_labels(data: bytes) -> LabelShard:
    """The rows of a label shard. Raises BrokenShardError."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            pairs = dict(tar.pax_headers)
            keys, views, labels = [], [], []
            for info in filter(tarfile.TarInfo.isreg, tar):
                key, view, extension = split_member_name(info.name)
                keys.append(key)
                views.append(view)
                member = tar.extractfile(info)
                labels.append(None if extension == NULL or member is None else member.read())
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise BrokenShardError(f"it isn't a readable tar: {error}") from None
    return LabelShard(ShardMeta.from_pairs(pairs), RowKeys(keys, views), labels)


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
    digest.update(_BLANK)
    digest.update(memoryview(data)[start + 64 :])
    return digest.hexdigest()


def _checksum_at(data: bytes) -> int:
    """Where the 64 hex digits begin: after the name and "=" in a tar's first header, after the name and the
    string's one-byte field header and length (Thrift compact protocol) in a Parquet footer."""
    name = _CHECKSUM.encode()
    if data[:4] == b"PAR1":
        at = data.rfind(name)
        start = at + len(name) + 2
    else:
        at = data.find(name + b"=", 0, 4096)
        start = at + len(name) + 1
    if at < 0 or start + 64 > len(data):
        raise BrokenShardError("it carries no checksum: cut off, or not a shard of tokenloom")
    return start
