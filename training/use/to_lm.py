"""Exports for decoder-only trainers: sequences of ids of one vocabulary.

vocabulary.json            the ids of markers and the offsets of modalities; `tokenloom decode` reads it
sequences/00000.parquet    tokens (a fixed number, filled up with padding), and of the parts of documents in them the
                           lengths, where in their documents they begin (0 but for what goes on), keys and views
megatron/00000.bin, .idx   the documents one by one, as Megatron indexes them, which packs them itself; none where a
                           piece has no document

A document that fits into a sequence is one part. A longer one begins in a new sequence and goes on in the next ones: it
is cut within modalities of any length alone, that is texts, and none of its tokens is left out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import numpy as np

from ...pipeline.corpus.units import Unit
from ...pipeline.plan.mistakes import Places
from ...tokenizers.contract.token_spec import TokenSpec
from .lm_tasks import LmTasks
from .lm_vocabulary import PAD, LmVocabulary
from .megatron import count_sequences, index_bytes
from .pieces import ExportError, Format, Made, Piece, Receipt, Source, read_parquet

VOCABULARY = "vocabulary.json"
_ZSTD_LEVEL = 3
_MARKERS, _END = 2, 1  # ids around a modality, and behind a document
_NOTHING = "its sample has none of its task's modalities"


COLUMNS = ("tokens", "lengths", "starts", "keys", "views")
"""Of the Parquet files."""


@dataclass(frozen=True)
class Document:
    """The tokens of one row, with its end. key, view: of the row. whole: from where to where it isn't cut."""

    key: str
    view: int
    ids: np.ndarray
    whole: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Part:
    """The ids [start, stop) of a document, which lie in one sequence."""

    document: Document
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class DecoderOnly(Format):
    name = "lm"
    most_rows = 4096

    def __init__(self, tasks: LmTasks, places: Places) -> None:
        self.tasks, self._places = tasks, places

    def check(self, source: Source) -> None:
        """That all modalities of the tasks are exported, and those that aren't cut fit into a sequence together."""
        for number, task in enumerate(self.tasks.tasks):
            key = f"tasks.{number}.order"
            order = source.modalities if task.order == "any" else task.order
            for name in order:
                if name not in source.modalities:
                    known = ", ".join(source.modalities)
                    raise self._mistake(key, f"there are no tokens of {name!r}; there are some of {known}")
            if len(set(order)) < len(order):
                raise self._mistake(key, "a modality is there twice: leave one of them out")
            enough = _enough(source, order, self.tasks.length)
            if "parquet" in self.tasks.files and enough > self.tasks.length:
                fewer = ", an order of fewer modalities" if len(order) > 1 else ""
                raise self._mistake(
                    key,
                    f"a document may have {enough} tokens, more than the {self.tasks.length} of a sequence: have the "
                    f"file of --tasks say `length: {enough}`{fewer}, or `files: [megatron]`, which has documents of "
                    f"any length",
                )

    def _mistake(self, key: str, text: str) -> ExportError:
        return ExportError(f"{self._places.of(key)}: {key}: {text}")

    def settings(self, source: Source) -> dict[str, Any]:
        return {"tasks": self.tasks.model_dump(mode="json"), "columns": list(COLUMNS)}

    def make(self, source: Source, piece: Piece) -> Made:
        vocabulary = LmVocabulary.of(source.reader.store.url, source.cards)
        made = [one for unit in piece.units for one in self._documents(source, vocabulary, unit)]
        documents = [one for one in made if one is not None]
        files: dict[str, bytes] = {}
        cut = 0
        if "parquet" in self.tasks.files:
            packed = pack(documents, self.tasks.length)
            files[f"sequences/{piece.number:05d}.parquet"] = _parquet(packed, self.tasks.length, vocabulary.dtype)
            cut = sum(len(one.ids) > self.tasks.length for one in documents)
        if "megatron" in self.tasks.files and documents:  # nobody can map an empty file
            stem = f"megatron/{piece.number:05d}"
            ids = [one.ids for one in documents]
            files[f"{stem}.bin"] = np.concatenate([np.empty(0, vocabulary.dtype), *ids]).tobytes()
            files[f"{stem}.idx"] = index_bytes([len(one) for one in ids], vocabulary.dtype)
        left_out = {_NOTHING: len(made) - len(documents)} if len(made) > len(documents) else {}
        told = {f"longer than `length: {self.tasks.length}`, and cut over several sequences": cut} if cut else {}
        return Made(files, len(documents), left_out, told)

    def _documents(self, source: Source, vocabulary: LmVocabulary, unit: Unit) -> Iterator[Document | None]:
        """Of each row; None for one with nothing."""
        for key, view, values in source.rows(unit):
            order = self.tasks.order(source.modalities, key, view)
            there = {name: ids for name in order if (ids := values[name]) is not None}
            whole = _whole(source, there, self.tasks.length)
            yield Document(key, view, vocabulary.document(there), whole) if there else None

    def count(self, files: Mapping[str, bytes]) -> int:
        """The documents, of which both sorts of files hold the same; -1 where they don't."""
        counts = set[int]() if files else {0}
        for path, data in files.items():
            if path.endswith(".parquet"):
                starts = read_parquet(data, COLUMNS)["starts"].combine_chunks()
                counts.add(int(np.count_nonzero(starts.flatten().to_numpy() == 0)))
            elif path.endswith(".idx"):
                counts.add(count_sequences(data))
        return counts.pop() if len(counts) == 1 else -1

    def closing(self, source: Source, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        """Raises ExportError where there is no document."""
        if not any(one.rows for one in receipts):
            raise ExportError(
                f"{source.reader.store.url}: no sample has any of its task's modalities: there is no document. Export "
                f"to another folder, by --tasks with others"
            )
        return {VOCABULARY: LmVocabulary.of(source.reader.store.url, source.cards).to_bytes()}


def pack(documents: Sequence[Document], length: int) -> list[list[Part]]:
    """Documents in order, as many in a sequence as fit into it as they are, and those that are longer in parts."""
    packed: list[list[Part]] = []
    room = 0
    for part in chain.from_iterable(cut(one, length) for one in documents):
        if len(part) > room:
            packed.append([])
            room = length
        packed[-1].append(part)
        room -= len(part)
    return packed


def cut(document: Document, length: int) -> Iterator[Part]:
    """The parts of a document: each as long as a sequence, less where what stays whole would be cut."""
    start, total = 0, len(document.ids)
    while start < total:
        stop = min(start + length, total)
        stop = next((begin for begin, end in document.whole if begin < stop < end), stop)
        yield Part(document, start, stop)
        start = stop


def _parquet(packed: Sequence[Sequence[Part]], length: int, dtype: np.dtype) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tokens = np.full((len(packed), length), PAD, dtype)
    for row, parts in zip(tokens, packed, strict=True):
        ids = np.concatenate([one.document.ids[one.start : one.stop] for one in parts])
        row[: len(ids)] = ids
    values = (
        pa.FixedSizeListArray.from_arrays(pa.array(tokens.ravel()), length),
        pa.array([[len(one) for one in row] for row in packed], pa.list_(pa.int32())),
        pa.array([[one.start for one in row] for row in packed], pa.list_(pa.int32())),
        pa.array([[one.document.key for one in row] for row in packed], pa.list_(pa.string())),
        pa.array([[one.document.view for one in row] for row in packed], pa.list_(pa.uint8())),
    )
    buffer = io.BytesIO()
    table = pa.table(dict(zip(COLUMNS, values, strict=True)))
    pq.write_table(table, buffer, compression="zstd", compression_level=_ZSTD_LEVEL, row_group_size=1024)
    return buffer.getvalue()


def _spec(source: Source, name: str) -> TokenSpec:
    tokens = source.cards[name].tokens
    assert tokens is not None
    assert tokens.spec is not None
    return tokens.spec


def _is_cut(spec: TokenSpec, length: int) -> bool:
    """Whether a modality may go on in the next sequence: of any length, and not sure to fit into one."""
    return spec.length is None and _MARKERS + spec.max_length + _END > length


def _whole(source: Source, values: Mapping[str, np.ndarray], length: int) -> list[tuple[int, int]]:
    """From where to where a document of these modalities isn't cut."""
    stops = list(accumulate(_MARKERS + len(ids) for ids in values.values()))
    spans = zip(values, [0, *stops], stops, strict=False)
    return [(start, stop) for name, start, stop in spans if not _is_cut(_spec(source, name), length)]


def _enough(source: Source, order: Sequence[str], length: int) -> int:
    """The least length of sequences, from `length` on, into which all fit together that isn't cut."""
    specs = [_spec(source, name) for name in order]
    most = _END + sum(_MARKERS + one.max_length for one in specs if not _is_cut(one, length))
    return _enough(source, order, most) if most > length else length
