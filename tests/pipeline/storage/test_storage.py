"""Storage: atomic creation, fresh listings, paths that can't escape, errors that help and tell no secret."""

from __future__ import annotations

import errno
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from tokenloom.pipeline.storage import local as storage_local
from tokenloom.pipeline.storage import objects
from tokenloom.pipeline.storage.errors import StorageError
from tokenloom.pipeline.storage.store import Store


@pytest.fixture
def store(place):
    return place


def test_create_writes_once(store):
    assert store.create("depth/a.parquet", b"first")
    assert not store.create("depth/a.parquet", b"second")
    assert store.read("depth/a.parquet") == b"first"
    assert store.create("empty", b"")
    assert not store.create("empty", b"x")
    assert store.read("empty") == b""


def test_replace_read_range_exists_and_delete(store):
    store.replace("a", b"old")
    store.replace("a", b"0123456789")
    assert store.read_range("a", 2, 5) == b"234"
    assert store.read_range("a", 8, 50) == b"89"
    assert store.read_range("a", 10, 50) == b""
    assert store.read_range("a", 5, 5) == b""
    assert store.size("a") == 10
    assert store.exists("a")
    store.delete("a")
    store.delete("a")
    assert not store.exists("a")
    with pytest.raises(FileNotFoundError, match=r"/a does not exist"):
        store.read("a")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        store.read_range("a", 0, 1)


def test_listing(store):
    assert store.list() == store.list("depth") == store.children() == []
    for name in ("depth/b", "depth/a", "depth/deep/c", "depths/x", "top"):
        store.create(name, name.encode())
    assert [entry.name for entry in store.list("depth")] == ["a", "b", "deep/c"]
    assert [entry.name for entry in store.list("depth/", recursive=False)] == ["a", "b"]
    assert [entry.name for entry in store.list()] == ["depth/a", "depth/b", "depth/deep/c", "depths/x", "top"]
    assert [entry.name for entry in store.list(recursive=False)] == ["top"]
    assert store.list("top") == store.list("nowhere") == store.list("dep") == []
    assert store.children() == ["depth/", "depths/", "top"]
    entry = store.list("depth")[0]
    assert entry.size == len("depth/a")
    assert abs(entry.modified - time.time()) < 60


def test_listing_is_fresh(store):
    other = pickle.loads(pickle.dumps(store))
    assert store.list("a") == []
    other.create("a/1", b"")
    assert [entry.name for entry in store.list("a")] == ["1"]
    other.delete("a/1")
    assert store.list("a") == []
    assert not store.exists("a/1")


def test_a_listing_has_every_page(store, monkeypatch):
    """Of an S3 server that gives ten names at once, instead of a thousand."""
    files, count, pages = store._files(), 1_100, []
    if getattr(files, "is_s3", False):
        count, call = 35, files.fs.call_s3
        monkeypatch.setattr(
            files.fs, "call_s3", lambda *what, **more: pages.append(what) or call(*what, **more, MaxKeys=10)
        )
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: store.replace(f"many/{index:05d}", b"x"), range(count)))
    assert [entry.name for entry in store.list("many")] == [f"{index:05d}" for index in range(count)]
    assert len(pages) == (0 if count == 1_100 else 4)


def test_what_is_deleted_leaves_no_folder(store):
    """Nor does a writer miss one that somebody else has just found empty."""
    store.create("top", b"")

    def come_and_go(index: int) -> None:
        for _ in range(20):
            assert store.create(f"marks/unit/stage/{index}", b"x")
            store.delete(f"marks/unit/stage/{index}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, range(8)))
    assert store.children() == ["top"]


def test_open_reads_as_a_file(store):
    store.create("a", b"0123456789")
    with store.open("a") as file:
        assert file.read(3) == b"012"
        file.seek(-4, os.SEEK_END)
        assert file.read() == b"6789"
        assert file.read(5) == b""
    assert store.open("a", size=4).read() == b"0123"


@pytest.mark.parametrize("path", ["../a", "/a", "a/../b", "a/..", "./a", "a\0b"])
def test_paths_stay_below_the_root(store, path):
    for action in (store.read, store.delete, store.exists, store.list, lambda path: store.create(path, b"")):
        with pytest.raises(StorageError, match="leaves its root"):
            action(path)


def test_one_of_many_writers_wins(store):
    if store.url.startswith("memory"):
        pytest.skip("fsspec's memory file system looks and writes in two steps")
    barrier = threading.Barrier(8)

    def write(index: int) -> bool:
        barrier.wait()
        return store.create("contested", b"%d" % index * 100_000)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert sum(won) == 1
    assert store.read("contested") == b"%d" % won.index(True) * 100_000
    assert [entry.name for entry in store.list()] == ["contested"]


def _create(store: Store) -> bool:
    return store.create("from-child", b"x")


def test_a_used_store_survives_a_fork(store):
    if store.url.startswith("memory"):
        pytest.skip("another process has other memory")
    store.create("before", b"")
    with get_context("fork").Pool(1) as pool:
        assert pool.apply(_create, (store,)) is True
    assert store.exists("from-child")


def test_local_urls_mean_the_same_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Store("out").url == Store(f"file://{tmp_path}/out/").url == Store(tmp_path / "out").url == f"{tmp_path}/out"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/out").url == f"{tmp_path}/out"


def test_create_without_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    store = Store(tmp_path)
    assert store.create("a", b"1")
    assert not store.create("a", b"2")
    assert store.read("a") == b"1"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_link_whose_answer_was_lost_counts(tmp_path, monkeypatch):
    link = os.link

    def link_and_lose_the_answer(source, target):
        link(source, target)
        raise FileExistsError(errno.EEXIST, "repeated request")

    monkeypatch.setattr(os, "link", link_and_lose_the_answer)
    assert Store(tmp_path).create("a", b"1")


def test_transient_errors_are_tried_again_and_then_named(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.create("a", b"1")
    calls, failures = [], 2
    monkeypatch.setattr("tokenloom.pipeline.storage.store._FIRST_WAIT", 0.001)

    def read(self, path):
        calls.append(path)
        if len(calls) <= failures:
            raise OSError(errno.EIO, "flaky")
        return b"1"

    monkeypatch.setattr(storage_local.LocalFiles, "read", read)
    assert store.read("a") == b"1"
    assert len(calls) == 3
    calls.clear()
    failures = 99
    with pytest.raises(StorageError, match=r"/a: could not read it, 10 times in \d+ s .*flaky"):
        store.read("a")
    assert len(calls) == 10


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="MiB are free there: make room"):
        Store(tmp_path).create("a/b", b"1")
    assert list((tmp_path / "a").iterdir()) == []


def test_listing_follows_links_but_not_in_circles(tmp_path):
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "real" / "inner" / "a").write_bytes(b"12")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "inner" / "up").symlink_to(tmp_path / "real")
    (tmp_path / "corpus" / "nothing").symlink_to(tmp_path / "missing")
    names = [entry.name for entry in Store(tmp_path / "corpus").list()]
    assert names == ["linked/inner/a"]


def test_local_errors_say_what_to_do(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="A file is in the way"):
        Store(tmp_path).create("file/below", b"")
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(StorageError, match="Give this user access"):
            Store(tmp_path).create("a", b"")
        tmp_path.chmod(0o700)


def test_an_answer_without_words_is_told_by_its_kind(tmp_path, monkeypatch):
    """As S3's to a HEAD, of which its client makes an error of None."""

    def refuse(files, path):
        raise PermissionError(None)

    monkeypatch.setattr(storage_local.LocalFiles, "read", refuse)
    with pytest.raises(StorageError, match=r"could not read it \(PermissionError\)"):
        Store(tmp_path).read("x")


def test_a_missing_bucket_is_an_error_even_for_a_listing(s3_server):
    store = Store("s3://no-such-bucket/x")
    for action in (store.list, lambda: store.create("a", b""), lambda: store.read("a"), lambda: store.exists("a")):
        with pytest.raises(StorageError, match="The bucket does not exist: create it"):
            action()


def test_a_dead_endpoint_is_named_and_no_secret_is(monkeypatch):
    monkeypatch.setattr("tokenloom.pipeline.storage.store._ATTEMPTS", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    once = {"retries": {"max_attempts": 0}}
    store = Store(
        "s3://bucket/x", {"key": "ACCESSKEY", "secret": "SECRETKEY", "endpoint_url": endpoint, "config_kwargs": once}
    )
    with pytest.raises(StorageError, match="Nothing answers there") as raised:
        store.list()
    assert endpoint in str(raised.value)
    assert not re.search("ACCESSKEY|SECRETKEY", str(raised.value) + repr(store))
    assert raised.value.__cause__ is None


def test_a_host_that_is_gone_is_no_matter_of_s3():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokenloom.pipeline.storage.store._ATTEMPTS", 1)
        with pytest.raises(StorageError, match="Nothing answers there: check the URL"):
            Store(url).children()


def test_options_go_before_the_environment(s3_url, s3_server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert Store(s3_url, {"endpoint_url": s3_server.endpoint}).create("a", b"1")


def test_missing_credentials_are_explained(s3_url, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Store(s3_url, {"default_block_size": 2**20}).list()  # other options, so that no connection is reused


def test_missing_file_systems_are_explained():
    with pytest.raises(StorageError, match=r"fsspec knows .*s3"):
        Store("nonsense://x").list()
    script = """
import sys
sys.modules |= dict.fromkeys(["s3fs", "adlfs", "gcsfs"])
from tokenloom.pipeline.storage.store import Store, StorageError
for url in ("s3://bucket", "az://container/x", "gs://bucket"):
    try:
        Store(url).list()
    except StorageError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    s3, azure, google = done.stdout.splitlines()
    assert s3 == "s3://bucket: no file system for s3:// is installed. pip install 'tokenloom[s3]'."
    assert azure == "az://container/x: no file system for az:// is installed. pip install 'tokenloom[azure]'."
    assert "gs://bucket: no file system for gs:// is installed. " in google
    assert "gcsfs" in google


def test_messages_hide_the_values_of_options_and_variables(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "from-env")
    options = {"token": "t0ken", "client_kwargs": {"aws_secret_access_key": "s3cr3t", "endpoint_url": "http://host"}}

    def fail(*_):
        raise PermissionError("t0ken, s3cr3t and from-env were refused by http://host/?sig=abc")

    store = Store(f"memory://{uuid.uuid4()}/from-env", options)
    monkeypatch.setattr(objects.ObjectFiles, "read", fail)
    with pytest.raises(StorageError) as raised:
        store.read("a")
    assert "***, *** and *** were refused by http://host/?sig=***" in str(raised.value)
    assert "/from-env/a: could not read it" in str(raised.value)


def test_errors_and_stores_can_be_sent_to_another_process(tmp_path):
    error = pickle.loads(pickle.dumps(StorageError("what", "url", "way out")))
    assert str(error) == "url: what. way out."
    store = Store(tmp_path, {"auto_mkdir": True})
    store.list()
    assert pickle.loads(pickle.dumps(store)).url == store.url


@pytest.mark.slow
def test_a_listing_of_100_000_files_is_quick(tmp_path):
    folder = Path(tmp_path, "many")
    folder.mkdir()
    (folder / "000000").write_bytes(b"x")
    for index in range(1, 100_000):
        if index % 50_000 == 0:  # file systems limit the links to one file
            (folder / f"{index:06d}").write_bytes(b"x")
        else:
            os.link(folder / f"{index // 50_000 * 50_000:06d}", folder / f"{index:06d}")
    start = time.process_time()
    assert len(Store(tmp_path).list("many")) == 100_000
    assert time.process_time() - start < 10
