"""Exports for decoder-only trainers, read by what is written of their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tokenloom.training.use.lm_vocabulary import PAD, LmVocabulary

TYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 6: np.float64, 7: np.float32, 8: np.uint16}
"""Megatron's codes of numpy's types."""


class MegatronReader:
    """What PREFIX.idx and PREFIX.bin hold, read as NVIDIA's documentation of megatron.core.datasets describes them."""

    def __init__(self, prefix: Path) -> None:
        index = prefix.with_suffix(".idx").read_bytes()
        assert index[:9] == b"MMIDIDX\x00\x00"
        assert int.from_bytes(index[9:17], "little") == 1
        self.dtype = np.dtype(TYPES[index[17]])
        count, documents = (int.from_bytes(index[at : at + 8], "little") for at in (18, 26))
        self.lengths = np.frombuffer(index, "<i4", count, 34)
        self.pointers = np.frombuffer(index, "<i8", count, 34 + 4 * count)
        self.documents = np.frombuffer(index, "<i8", documents, 34 + 12 * count)
        assert len(index) == 34 + 12 * count + 8 * documents
        self.data = prefix.with_suffix(".bin").read_bytes()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> np.ndarray:
        return np.frombuffer(self.data, self.dtype, self.lengths[number], self.pointers[number])


def vocabulary(exported: Path) -> LmVocabulary:
    return LmVocabulary.from_bytes((exported / "vocabulary.json").read_bytes(), "vocabulary.json")


def packed(exported: Path) -> list[dict]:
    return [row for path in sorted((exported / "sequences").iterdir()) for row in pq.read_table(path).to_pylist()]


def documents(exported: Path) -> list[tuple[str, int, np.ndarray]]:
    """Key, view and ids of each document in the sequences, whose parts are put together."""
    found: list[tuple[str, int, np.ndarray]] = []
    for row in packed(exported):
        stops = np.cumsum(row["lengths"])
        parts = zip(row["keys"], row["views"], row["starts"], stops, row["lengths"], strict=True)
        for key, view, start, stop, length in parts:
            ids = np.array(row["tokens"][stop - length : stop])
            if start:
                assert found[-1][:2] == (key, view)
                assert len(found[-1][2]) == start
                found[-1] = (key, view, np.concatenate([found[-1][2], ids]))
            else:
                found.append((key, view, ids))
        assert set(row["tokens"][int(stops[-1]) :]) <= {PAD}
    return found
