"""How processes end: never without a word, whatever ends them; and one that has read Parquet may end at once.

Arrow's own threads drop what they hold after the read has answered. Where that is a buffer of Python's and Python has
ended meanwhile, the process aborts: seen in 4 of 140 runs that had nothing to do. So nothing reads with such threads.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpus_files import parquet_bytes
from small_dataset import write_dataset
from tokenloom.pipeline.cli import main

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


_STOPPED = "tokenloom: stopped; what was committed stays, the same command goes on from there\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_one_whatever_becomes_of_it(number, monkeypatch, capsys):
    """Raised within an import that is C's, it comes out as a TypeError (seen in Ray's first `put`)."""

    def interrupted(*_: object) -> None:
        try:
            signal.raise_signal(number)
        except SystemExit:
            raise TypeError("expected a message argument") from None

    monkeypatch.setattr("tokenloom.pipeline.commands.dataset.status", interrupted)
    monkeypatch.setattr(sys, "argv", ["tokenloom", "status", "out"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 128 + number
    assert capsys.readouterr().err == _STOPPED
    monkeypatch.setattr("ray.is_initialized", lambda: True)  # it says so at once, in case Ray ends the process
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == f"tokenloom: stopping\n{_STOPPED}"


def test_an_error_without_a_text_is_named(monkeypatch, capsys):
    def timed_out(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr("tokenloom.pipeline.commands.dataset.status", timed_out)
    monkeypatch.setattr(sys, "argv", ["tokenloom", "status", "out"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == "tokenloom: TimeoutError\n"


_IN_AN_IMPORT = """
import signal, sys
from tokenloom.pipeline.cli import main

class Stop:
    def find_spec(self, name, path, target=None):
        if name == "numpy._core.multiarray":  # after which numpy can't be imported any more
            signal.raise_signal(signal.SIGTERM)

sys.meta_path.insert(0, Stop())
sys.argv = ["tokenloom", "status", "out"]
main()
"""


def test_a_stop_within_an_import_is_told():
    ended = subprocess.run([sys.executable, "-c", _IN_AN_IMPORT], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (143, _STOPPED)


_BEFORE_THE_COMMANDS = """
import signal, sys
from tokenloom.pipeline.start import main

class Stop:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Stop())
main()
"""


def test_a_stop_before_the_commands_are_imported_is_told():
    ended = subprocess.run([sys.executable, "-c", _BEFORE_THE_COMMANDS], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (130, "tokenloom: stopped\n")


def test_a_reader_that_goes_is_told():
    command = [sys.executable, "-m", "tokenloom.pipeline.cli", "labelers"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said.partition(";")[0]) == (1, "tokenloom: nobody reads any more what is printed")


def test_a_stop_while_ray_starts_is_told(photos, tmp_path):
    """Ray has handlers of its own then, which end a process without a word."""
    (tmp_path / "corpus").mkdir()
    name, data = next(iter(photos.items()))
    (tmp_path / "corpus" / f"{name}.jpg").write_bytes(data)
    words = ["run", "quickstart", "--corpus", str(tmp_path / "corpus"), "--output", str(tmp_path / "out")]
    command = [sys.executable, "-m", "tokenloom.pipeline.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not _starts_ray(process.pid):
            time.sleep(0.05)
        process.terminate()
        said = process.communicate()[1]
    assert (process.returncode, said) == (143, _STOPPED)
    assert not (tmp_path / "out").exists()


def _starts_ray(pid: int) -> bool:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return any(b"gcs_server" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)


_ONCE_RAY_IS_UP = """
import os, signal, time
from tokenloom.pipeline.cluster.session import start_ray
from tokenloom.pipeline.ending import said_how_it_ends
with said_how_it_ends():
    start_ray()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""


def test_a_stop_once_ray_is_up_is_told_at_once():
    """Whose core has put a handler of its own in the place of Python's, by which a process aborts."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-c", _ONCE_RAY_IS_UP]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (ended.returncode, ended.stderr) == (143, f"tokenloom: stopping\n{_STOPPED}")
