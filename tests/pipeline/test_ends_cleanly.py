"""A process that has read Parquet may end at once.

Arrow's own threads drop what they hold after the read has answered. Where that is a buffer of Python's and Python has
ended meanwhile, the process aborts: seen in 4 of 140 runs that had nothing to do. So nothing reads with such threads.
"""

from __future__ import annotations

import subprocess
import sys

from corpus_files import parquet_bytes
from small_dataset import write_dataset

READING = """
import io, os, sys, time
import pyarrow as pa, pyarrow.parquet as pq
from tokenloom.pipeline.corpus.corpus import Corpus, CorpusSettings
from tokenloom.pipeline.dataset.dataset import open_dataset

def threads():
    return len(os.listdir("/proc/self/task"))

def of_reading(use_threads):
    begun = threads()
    pq.ParquetFile(io.BytesIO(data), pre_buffer=use_threads).read(use_threads=use_threads)
    return threads() - begun

file = io.BytesIO()
pq.write_table(pa.table({name: ["x"] * 99 for name in "abc"}), file)
data = file.getvalue()
of_reading(False)  # whatever Arrow begins for itself
before = threads()
assert len(list(open_dataset(sys.argv[1]).iterate(["caption", "dinov2"]))) == 32
corpus = Corpus(CorpusSettings(url=sys.argv[2]))
assert sum(unit.unit.count for shard in corpus.shards() for unit in corpus.read(shard)) == int(sys.argv[3])
late = time.monotonic() + 20
while threads() > before and time.monotonic() < late:  # those that read ahead are about to end
    time.sleep(0.01)
print(threads() - before, of_reading(True))
"""


def test_nothing_reads_parquet_with_threads_that_outlive_it(photos, tmp_path):
    write_dataset(tmp_path / "dataset")
    (tmp_path / "corpus").mkdir()
    columns = {"jpg": list(photos.values()), "caption": ["x"] * len(photos)}
    (tmp_path / "corpus" / "a.parquet").write_bytes(parquet_bytes(columns))
    command = [sys.executable, "-c", READING, str(tmp_path / "dataset"), str(tmp_path / "corpus"), str(len(photos))]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    ours, arrows = map(int, answer.stdout.split())
    assert (ours, arrows > 0) == (0, True)
