"""Exports for decoder-only trainers: sequences of ids of one vocabulary.

vocabulary.json            the ids of markers and the offsets of modalities; `tokenloom decode` reads it
sequences/00000.parquet    tokens (a fixed number, filled up with padding), and of the documents in them the lengths,
                           keys and views
megatron/00000.bin, .idx   the documents one by one, as Megatron indexes them, which packs them itself
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...pipeline.corpus.units import Unit
from ...pipeline.plan.mistakes import Places
from .lm_tasks import LmTasks
from .lm_vocabulary import PAD, LmVocabulary
from .megatron import count_sequences, index_bytes
from .pieces import ExportError, Format, Made, Piece, Receipt, Source, read_parquet

VOCABULARY = "vocabulary.json"
_ZSTD_LEVEL = 3
_NOTHING = "its sample has none of its task's modalities"


@dataclass(frozen=True)
class Document:
    """The tokens of one row, with its end. key, view: of the row."""

    key: str
    view: int
    ids: np.ndarray


class DecoderOnly(Format):
    name = "lm"
    most_rows = 4096

    def __init__(self, tasks: LmTasks, places: Places) -> None:
        self.tasks, self._places = tasks, places

    def check(self, source: Source) -> None:
        """That all modalities of the tasks are exported, and the longest document of each fits into a sequence."""
        for number, task in enumerate(self.tasks.tasks):
            key = f"tasks.{number}.order"
            order = source.modalities if task.order == "any" else task.order
            for name in order:
                if name not in source.modalities:
                    known = ", ".join(source.modalities)
                    raise self._mistake(key, f"there are no tokens of {name!r}; there are some of {known}")
            if len(set(order)) < len(order):
                raise self._mistake(key, "a modality is there twice: leave one of them out")
            longest = 1 + sum(2 + _most_tokens(source, name) for name in order)
            if longest > self.tasks.length:
                raise self._mistake(
                    key,
                    f"a document may have {longest} tokens, more than a sequence: write `length: {longest}`, or an "
                    f"order of fewer modalities",
                )

    def _mistake(self, key: str, text: str) -> ExportError:
        return ExportError(f"{self._places.of(key)}: {key}: {text}")

    def settings(self, source: Source) -> dict[str, Any]:
        return {"tasks": self.tasks.model_dump(mode="json")}

    def make(self, source: Source, piece: Piece) -> Made:
        vocabulary = LmVocabulary.of(source.reader.store.url, source.cards)
        made = [one for unit in piece.units for one in self._documents(source, vocabulary, unit)]
        documents = [one for one in made if one is not None]
        files: dict[str, bytes] = {}
        if "parquet" in self.tasks.files:
            packed = pack(documents, self.tasks.length)
            files[f"sequences/{piece.number:05d}.parquet"] = _parquet(packed, self.tasks.length, vocabulary.dtype)
        if "megatron" in self.tasks.files:
            stem = f"megatron/{piece.number:05d}"
            ids = [one.ids for one in documents]
            files[f"{stem}.bin"] = np.concatenate([np.empty(0, vocabulary.dtype), *ids]).tobytes()
            files[f"{stem}.idx"] = index_bytes([len(one) for one in ids], vocabulary.dtype)
        left_out = {_NOTHING: len(made) - len(documents)} if len(made) > len(documents) else {}
        return Made(files, len(documents), left_out)

    def _documents(self, source: Source, vocabulary: LmVocabulary, unit: Unit) -> Iterator[Document | None]:
        """Of each row; None for one with nothing."""
        for key, view, values in source.rows(unit):
            order = self.tasks.order(source.modalities, key, view)
            there = {name: ids for name in order if (ids := values[name]) is not None}
            yield Document(key, view, vocabulary.document(there)) if there else None

    def count(self, files: Mapping[str, bytes]) -> int:
        """The documents, of which both sorts of files hold the same; -1 where they don't."""
        counts = set()
        for path, data in files.items():
            if path.endswith(".parquet"):
                lengths = read_parquet(data)["lengths"].combine_chunks()
                counts.add(len(lengths.flatten()))
            elif path.endswith(".idx"):
                counts.add(count_sequences(data))
        return counts.pop() if len(counts) == 1 else -1

    def closing(self, source: Source, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        return {VOCABULARY: LmVocabulary.of(source.reader.store.url, source.cards).to_bytes()}


def pack(documents: Sequence[Document], length: int) -> list[list[Document]]:
    """Documents in order, as many in a sequence as fit into it as they are."""
    packed: list[list[Document]] = []
    room = 0
    for one in documents:
        if len(one.ids) > room:
            packed.append([])
            room = length
        packed[-1].append(one)
        room -= len(one.ids)
    return packed


def _parquet(packed: Sequence[Sequence[Document]], length: int, dtype: np.dtype) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tokens = np.full((len(packed), length), PAD, dtype)
    for row, documents in zip(tokens, packed, strict=True):
        ids = np.concatenate([one.ids for one in documents])
        row[: len(ids)] = ids
    table = pa.table(
        {
            "tokens": pa.FixedSizeListArray.from_arrays(pa.array(tokens.ravel()), length),
            "lengths": pa.array([[len(one.ids) for one in row] for row in packed], pa.list_(pa.int32())),
            "keys": pa.array([[one.key for one in row] for row in packed], pa.list_(pa.string())),
            "views": pa.array([[one.view for one in row] for row in packed], pa.list_(pa.uint8())),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", compression_level=_ZSTD_LEVEL, row_group_size=1024)
    return buffer.getvalue()


def _most_tokens(source: Source, name: str) -> int:
    tokens = source.cards[name].tokens
    assert tokens is not None
    assert tokens.spec is not None
    return tokens.spec.max_length
