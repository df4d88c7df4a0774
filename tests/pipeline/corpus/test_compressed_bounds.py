"""Compressed texts that are a thousand times larger than their files: refused, at a cost in memory that is bounded."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from tokenloom.pipeline.corpus.samples import LARGEST_TEXT

SIZE = 400 * 2**20
MEBIBYTES = 150
"""By which reading may grow: a line of 16 MiB, twice, and buffers."""

_READ = """
import resource, sys
from tokenloom.pipeline.corpus.corpus import Corpus, CorpusSettings
import pyarrow
corpus = Corpus(CorpusSettings(url=sys.argv[1], text="text"))
(shard,) = corpus.shards()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
units = list(corpus.read(shard))
print(sum(len(unit.samples) for unit in units), *(one.error for unit in units for one in unit.rejected))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_one_line_of_nothing_costs_itself(ending: str, tmp_path: Path):
    """Behind it the file goes on."""
    path = tmp_path / f"bomb.jsonl.{ending}"
    piece, last = bytes(2**20), b'\n{"text": "behind it"}\n'
    with path.open("wb") as file:
        packed = gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) if ending == "gz" else None
        with packed or pa.CompressedOutputStream(pa.PythonFile(file), "zstd") as out:
            for _ in range(SIZE // len(piece)):
                out.write(piece)
            out.write(last)
    assert path.stat().st_size < SIZE / 100
    assert SIZE > 20 * LARGEST_TEXT
    ended = subprocess.run([sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=True)
    read, grown = ended.stdout.splitlines()
    assert read == "1 TooLarge"
    assert int(grown) < MEBIBYTES
