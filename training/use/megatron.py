"""Megatron's indexed binary: what its IndexedDataset (core/datasets/indexed_dataset.py) opens as PREFIX.bin and .idx.

PREFIX.bin holds the sequences, one behind the other, as numbers of one type. PREFIX.idx, all little-endian:

    9 bytes             MMIDIDX\\0\\0
    uint64              version: 1
    uint8               the type of the numbers: 4 for int32, 8 for uint16
    uint64              how many sequences, S
    uint64              how many entries the index of documents has, D: one more than documents
    int32 x S           numbers in each sequence
    int64 x S           where it begins in PREFIX.bin, in bytes
    int64 x D           the first sequence of each document, and S at the end

Here each document is one sequence.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_CODES = {np.dtype(np.int32): 4, np.dtype(np.uint16): 8}


def index_bytes(lengths: Sequence[int], dtype: np.dtype) -> bytes:
    """PREFIX.idx for documents of so many numbers each, of that type."""
    count = len(lengths)
    sizes = np.array(lengths, "<i4")
    starts = (np.cumsum(sizes, dtype="<i8") - sizes) * dtype.itemsize
    documents = np.arange(count + 1, dtype="<i8")
    header = _HEADER.pack(_MAGIC, 1, _CODES[dtype], count, count + 1)
    return b"".join((header, sizes.tobytes(), starts.astype("<i8").tobytes(), documents.tobytes()))


def count_sequences(index: bytes) -> int:
    """How many sequences a PREFIX.idx tells of; -1 where it isn't one, or not all of it."""
    if len(index) < _HEADER.size or index[: len(_MAGIC)] != _MAGIC:
        return -1
    _, _, _, sequences, documents = _HEADER.unpack_from(index)
    return sequences if len(index) == _HEADER.size + 12 * sequences + 8 * documents else -1
