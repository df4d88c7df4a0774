"""Foreign bytes of every sort, by time and memory: each is read, or refused, at a cost that its size accounts for.

Run as a script it reads what tests made; in a process of its own, so that its peak of memory is that of its reading.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SECONDS = 20
"""Of processor time that a file of up to 1 MiB may take: what is linear takes 2 at most, what is quadratic minutes."""

MEBIBYTES = 500


def member(name: str, kind: bytes, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def with_pax(records: bytes) -> bytes:
    return member("pax", tarfile.XHDTYPE, records) + member("a.jpg", tarfile.REGTYPE, b"1") + bytes(1024)


def mutated(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """The data with a few bytes changed, or cut off, or a piece of it twice."""
    dice = random.Random(seed)
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(dice.randint(1, 6)):
            changed[dice.randrange(len(changed))] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
        at, length = dice.randrange(len(changed)), dice.randrange(600)
        yield bytes(dice.choice((changed, changed[:at], changed[:at] + changed[max(0, at - length) :])))


def tars() -> Iterator[bytes]:
    from corpus_files import tar_bytes

    mib = 2**20
    for record in (b"-3 =", b"-1 a=b\n", b"0 a=b\n", b"6 a=b\n", b"1 a=b\n", b"999999999 a=b\n", b" ", b"1", b"\n"):
        yield with_pax((record * mib)[: mib // 8])
        yield with_pax((record * mib)[:mib])
    yield with_pax(b"9" * mib)
    yield with_pax(b"25 size=%s\n" % (b"9" * 15))
    yield with_pax(b"%d path=%s\n" % (mib - 20, b"a/" * (mib // 2)))
    yield member("x", tarfile.GNUTYPE_LONGNAME, b"n" * mib) * 4 + bytes(1024)
    yield b"".join(member(f"a.{index}", tarfile.REGTYPE, b"") for index in range(2000)) + bytes(1024)
    yield tar_bytes([]) * 100
    yield bytes(mib)
    long = "directory/" * 20
    sound = tar_bytes([(f"{long}{index}.{end}", b"{}" * 40) for index in range(4) for end in ("jpg", "json", "txt")])
    yield from mutated(sound, 300, seed=1)
    yield from mutated(tar_bytes([(f"{long}é.jpg", b"1")], tarfile.GNU_FORMAT), 200, seed=2)


def parquets() -> Iterator[bytes]:
    import pyarrow as pa
    from corpus_files import parquet_bytes

    fields = pa.array([{"a": [1.5], "b": "x"}] * 40)
    columns = {
        "key": [str(index) for index in range(40)],
        "jpg": [bytes(50)] * 40,
        "caption": ["c"] * 40,
        "more": fields,
    }
    yield from mutated(parquet_bytes(columns), 200, seed=3)
    yield from mutated(parquet_bytes(columns, compression="zstd", use_dictionary=False), 100, seed=4)
    yield parquet_bytes({f"column{index}": pa.array([], pa.int8()) for index in range(1000)} | {"jpg": [b""][:0]})


def sidecars() -> Iterator[bytes]:
    """JSON beside an image, of a MiB each."""
    mib = 2**20
    for piece in ("[", '{"a":', "9", "-", '"', "[],", '{"a": 1},', "1e9,", "\\ud800", " ", "\x00"):
        whole = (piece * mib)[:mib]
        yield whole.encode()
        yield f'{{"x": [{whole}1]}}'.encode()
        yield f'{{"x": "{whole}"}}'.encode()
    yield ('{"a":' * 90 + "1" + "}" * 90).encode()
    yield ('{"a":' * 500 + "1" + "}" * 500).encode()
    yield json.dumps({str(index): index for index in range(80_000)}).encode()
    yield from mutated(json.dumps({"a": [1, {"b": "é"}], "c": None, "d": 1.5}).encode(), 300, seed=5)


def tables() -> Iterator[tuple[str, bytes]]:
    """Tables beside images, of a quarter of a MiB each."""
    size = 2**18
    for piece in ('"', ",", "\n", "a,", "é", "[", "{}\n", '{"file_name": "a.jpg"}\n', "file_name\n", '"\n'):
        whole = (piece * size)[:size].encode()
        yield "metadata.csv", whole
        yield "metadata.csv", b"file_name,text\n" + whole
        yield "metadata.jsonl", whole
    yield from (("metadata.csv", data) for data in mutated(b'file_name,text\na.jpg,"one, two"\n' * 9, 150, seed=6))
    yield from (("metadata.jsonl", data) for data in mutated(b'{"file_name": "a.jpg", "n": [1]}\n' * 9, 150, seed=7))


def read_all(folder: Path) -> None:
    """Reads the corpus as a run does, to what travels on to the stages."""
    from corpus_files import corpus_of
    from tokenloom.pipeline.corpus.corpus import CorpusError
    from tokenloom.pipeline.engine.payload import UnitPayload

    corpus = corpus_of(str(folder))
    try:
        shards = corpus.shards()
        corpus.check(shards)
        for shard in shards:
            for unit in corpus.read(shard):
                UnitPayload.of(unit, ()).to_table()
    except CorpusError:
        pass


def corpora(kind: str) -> Iterator[dict[str, bytes]]:
    if kind == "tar":
        yield from ({"a.tar": data} for data in tars())
    elif kind == "parquet":
        yield from ({"a.parquet": data} for data in parquets())
    elif kind == "sidecar":
        yield from ({"a.jpg": b"1", "a.json": data} for data in sidecars())
    else:
        yield from ({"a.jpg": b"1", name: data} for name, data in tables())


def main(kind: str, place: Path) -> None:
    """Prints the growth of the peak of memory, in MiB. Dies of SIGVTALRM where a corpus takes too long."""
    warmed: Callable[[], int] = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # noqa: E731
    before = 0
    for number, files in enumerate(corpora(kind)):
        folder = place / str(number)
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        if number:
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        print(f"{kind} {zlib.crc32(repr(files).encode()):08x} {folder}", file=sys.stderr)
        read_all(folder)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        before = before or warmed()
    print(warmed() - before)


@pytest.mark.parametrize("kind", ["tar", "parquet", "sidecar", "table"])
def test_what_foreign_bytes_cost(kind: str, tmp_path: Path):
    command = [sys.executable, __file__, kind, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert int(done.stdout) < MEBIBYTES


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "helpers"))
    main(sys.argv[1], Path(sys.argv[2]))
