"""Merged shards: the rows of several units as one object, unit by unit, so that those of one can be read by a range.

Tokens: each unit's rows are a row group. Labels: each unit's members are a stretch of the tar, whose size its head
tells. What each unit's own shard said of itself (revision, ledgers, a digest of its rows) is there, too, and a digest
of what it held, since who reads a unit alone can't tell the whole shard's.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..corpus.units import Unit
from ..storage.store import Store
from .layout import TOKENS, extension_of, merged_stem, stem_of
from .merges import Places
from .shard_meta import BrokenShardError, Part, ShardMeta, content_digest, merged_pairs, parts_of, rows_digest
from .shards import (
    RowKeys,
    label_members,
    read_labels,
    read_pairs,
    read_token_table,
    read_tokens,
    token_content,
    verify_checksum,
    write_members,
    write_tables,
)

if TYPE_CHECKING:
    import pyarrow as pa


def provide_merged(store: Store, folder: str, extension: str, units: Sequence[tuple[Unit, int]]) -> int:
    """Sees to it that the merged shard of these units, at their revisions, is in their folder, and reads back as it
    should; its bytes. What a compaction that died has left is taken as it is, if it is whole. extension: of labels.

    Raises BrokenShardError, naming it, for a shard that isn't what was written, the units' or the merged one;
    FileNotFoundError for one of theirs that is missing.
    """
    stems = [stem_of(unit, revision) for unit, revision in units]
    path = f"{folder}/{merged_stem(stems)}.{extension_of(folder)}"
    if store.exists(path):
        there = store.read(path)
        if _is_whole(there, folder, stems):
            return len(there)
        store.delete(path)  # no list names it: it is of a writer that died, on a store where that leaves a part
    data = _merged(store, folder, extension, units)
    store.create(path, data)
    there = store.read(path)
    if there != data and not _is_whole(there, folder, stems):
        raise BrokenShardError(f"{store.url}/{path}: what is read there isn't what was written")
    return len(there)


def _merged(store: Store, folder: str, extension: str, units: Sequence[tuple[Unit, int]]) -> bytes:
    modality, _, last = folder.partition("/")
    generation = last.partition("-")[2]
    places, read = Places(store), ("", b"")
    parts: list[Part] = []
    tables: list[pa.Table] = []
    members: list[bytes] = []

    def checked(path: str) -> tuple[str, bytes]:
        """The whole shard; that which was read last isn't read again, since it may hold the next unit, too."""
        if path == read[0]:
            return read
        data = store.read(path)
        verify_checksum(data)
        return path, data

    for unit, revision in units:
        stem = stem_of(unit, revision)
        try:
            read = places.read(folder, stem, checked)
            if extension_of(folder) == TOKENS:
                meta, table = read_token_table(read[1], unit=unit.name)
                tables.append(table.replace_schema_metadata(None))
                rows, size = RowKeys(table["key"].to_pylist(), table["view"].to_pylist()), 0
                content = token_content(table["tokens"])
            else:
                shard = read_labels(read[1], unit.name)
                members.append(label_members(shard.rows, shard.labels, extension))
                meta, rows, size = shard.meta, shard.rows, len(members[-1])
                content = members[-1:]
            if meta != ShardMeta(unit.name, modality, generation, meta.ledger, meta.rejected):
                raise BrokenShardError("it isn't what its name says")
        except BrokenShardError as error:
            raise BrokenShardError(f"{store.url}/{places.path(folder, stem)}: {error}") from None
        digest = rows_digest(rows.keys, rows.views)
        told = content_digest(unit.name, digest, *content)
        parts.append(Part(unit.name, stem, meta.ledger, meta.rejected, len(rows), digest, size, told))
    pairs = merged_pairs(parts, modality, generation)
    return write_tables(tables, pairs) if tables else write_members(members, pairs)


def _is_whole(data: bytes, folder: str, stems: Sequence[str]) -> bool:
    """Whether bytes are those of a merged shard of these units, every bit and every row."""
    try:
        verify_checksum(data)
        parts = parts_of(read_pairs(io.BytesIO(data), extension_of(folder)))
        read = read_tokens if extension_of(folder) == TOKENS else read_labels
        rows = [read(data, part.unit).rows for part in parts]
    except BrokenShardError:
        return False
    digests = [rows_digest(one.keys, one.views) for one in rows]
    return [part.stem for part in parts] == list(stems) and [part.digest for part in parts] == digests
