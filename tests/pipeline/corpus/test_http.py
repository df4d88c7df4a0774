"""Corpora on a web server, whose listings are HTML pages without sizes."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from corpus_files import contents, corpus_of, parquet_bytes, tar_bytes
from tokenloom.pipeline.corpus.samples import CorpusError
from tokenloom.pipeline.storage.store import StorageError

pytestmark = pytest.mark.slow

TAR = tar_bytes([(f"{index}.jpg", bytes([index]) * 3000) for index in range(20)])


class Quiet(SimpleHTTPRequestHandler):
    wbufsize = -1  # an answer in one piece: the second would wait 40 ms for the client's word that it has the first

    def log_message(self, *words: object) -> None:
        pass


class Ranges(Quiet):
    """As web servers are that people put corpora on: asked for a part, it sends a part."""

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            return super().do_GET()
        start, last, data = int(wanted[1]), int(wanted[2]), path.read_bytes()
        part = data[start : last + 1]
        self.send_response(206 if part else 416)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)
        return None


class Server(ThreadingHTTPServer):
    request_queue_size = 64  # else whoever asks at the same time as fifteen others is heard a second later


@pytest.fixture(params=[Ranges])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with Server(("127.0.0.1", 0), partial(request.param, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("url", ["tars", "tars/*.tar", "tars/a.tar"])
def test_tars(server, tmp_path, url):
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars/a.tar").write_bytes(TAR)
    corpus = corpus_of(f"{server}/{url}")
    assert [shard.size for shard in corpus.shards()] == [len(TAR)]
    samples, refused = contents(corpus)
    assert (len(samples), refused) == (20, [])


def test_parquet_and_folders(server, tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows/a.parquet").write_bytes(parquet_bytes({"jpg": [b"1"] * 30}))
    assert len(contents(corpus_of(f"{server}/rows"))[0]) == 30
    (tmp_path / "photos").mkdir()
    for index in range(20):
        (tmp_path / f"photos/{index}.jpg").write_bytes(bytes([index]))
        (tmp_path / f"photos/{index}.txt").write_text(str(index))
    samples, _ = contents(corpus_of(f"{server}/photos"))
    assert {key: sample.fields["caption"] for key, sample in samples.items()} == {str(n): str(n) for n in range(20)}
    assert list(contents(corpus_of(f"{server}/photos/1*.jpg"))[0])[:2] == ["1", "10"]


@pytest.mark.parametrize("server", [Quiet], indirect=True)
def test_a_server_that_sends_the_whole_file_for_a_part(server, tmp_path):
    (tmp_path / "a.tar").write_bytes(TAR * 200)
    with pytest.raises(StorageError, match="the whole file where a part is asked for"):
        contents(corpus_of(f"{server}/a.tar"))


class Signed(Ranges):
    """As object stores answer for signed URLs: only those who have the signature get anything, and no listing."""

    def do_GET(self) -> None:
        address, _, query = self.path.partition("?")
        if query != "X-Sig=a%2Bb&dl=1" or address.endswith("/"):
            return self.send_error(403)
        self.path = address
        return super().do_GET()

    def do_HEAD(self) -> None:
        self.send_error(403)  # the signature is for GET


@pytest.mark.parametrize("server", [Signed], indirect=True)
def test_signed_urls_are_read_and_their_signatures_are_no_names(server, tmp_path):
    for name in ("a.tar", "c"):
        (tmp_path / name).write_bytes(TAR)
    (tmp_path / "b.tar").write_bytes(other := tar_bytes([(f"b{index}.jpg", b"1") for index in range(20)]))
    signed = f"{server}/{{a,b}}.tar?X-Sig=a%2Bb&dl=1"
    corpus = corpus_of(signed)
    assert [(shard.path, shard.size) for shard in corpus.shards()] == [("a.tar", len(TAR)), ("b.tar", len(other))]
    samples, refused = contents(corpus)
    assert (len(samples), refused) == (40, [])
    assert len(contents(corpus_of(f"{server}/c?X-Sig=a%2Bb&dl=1", format="tar"))[0]) == 20
    # The cause and the way out where it can't be read, and the signature in none of them.
    for url, error, said in (
        (f"{server}/a.tar?X-Sig=old&dl=1", StorageError, r"/a\.tar: could not look for it .*403.*may have expired"),
        (f"{server}/a.tar", StorageError, r"/a\.tar: could not look for it .*403.*may have expired"),
        (signed.replace("a,b", "a,d"), CorpusError, r"/d\.tar: nothing is there, one of 1 missing of 2"),
        (signed.replace("{a,b}", "*"), CorpusError, r"/\*\.tar\?X-Sig=\*\*\*&dl=1: a URL with a query names files"),
    ):
        with pytest.raises(error, match=said) as raised:
            corpus_of(url).shards()
        assert not re.search("a%2Bb|a\\+b|old", str(raised.value))
    with pytest.raises(CorpusError, match="differ in their queries alone"):
        corpus_of([f"{server}/get?id=1", f"{server}/get?id=2"], format="tar").shards()
