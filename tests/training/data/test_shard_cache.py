"""The folder that keeps shards: it gives what was put or nothing, and nothing that happens to it is raised."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenloom.training.data import shard_cache
from tokenloom.training.data.shard_cache import ShardCache


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.shard"))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != "used")


def test_it_keeps_what_was_used_last(tmp_path):
    cache = ShardCache(tmp_path / "cache", 1000)
    for index in range(4):
        cache.put(f"shard {index}", bytes([index]) * 200)
    assert cache.get("shard 0") == bytes(200)
    cache.put("shard 4", bytes([4]) * 200)
    assert cache.get("shard 1") is None
    assert [cache.get(f"shard {index}") for index in (0, 4)] == [bytes(200), bytes([4]) * 200]
    assert size_of(tmp_path / "cache") <= 1000
    cache.put("too large", bytes(2000))
    assert cache.get("too large") is None


def test_a_process_that_was_forked_meanwhile_keeps_no_lock(tmp_path):
    """As a DataLoader forks its workers while threads of the process that trains fetch shards."""
    cache, went_on = ShardCache(tmp_path, 10**6), threading.Event()

    def again() -> None:
        with cache.alone("shard"):
            went_on.set()

    with cache.alone("shard"):
        child = os.fork()
        if not child:
            signal.pause()
    try:
        threading.Thread(target=again, daemon=True).start()
        assert went_on.wait(10)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_others_have_in_the_folder_stays(tmp_path):
    (tmp_path / "thesis.tex").write_bytes(bytes(500))
    cache = ShardCache(tmp_path, 500)
    for index in range(4):
        cache.put(f"shard {index}", bytes(300))
    assert (tmp_path / "thesis.tex").exists()
    assert cache.get("shard 3") == bytes(300)


@pytest.mark.parametrize("size", [0, 10, 65536, 150_000])
def test_parts_are_those_of_the_whole(tmp_path, size):
    data = np.random.default_rng(size).bytes(size)
    cache = ShardCache(tmp_path, 10**6)
    cache.put("shard", data)
    assert cache.size("shard") == size
    for start, stop in ((0, None), (0, 0), (3, 5), (65530, 65540), (70_000, None), (131_000, 10**6), (size, size + 1)):
        assert cache.get("shard", start, stop) == data[start:stop]


@pytest.mark.parametrize("at", [0, 5, 11, 13, 24, 70_000, -1])
def test_a_flipped_bit_is_never_given(tmp_path, at):
    """In the checksum of the head, the size, the blocks' checksums, the data."""
    data = np.random.default_rng(0).bytes(150_000)
    cache = ShardCache(tmp_path, 10**6)
    cache.put("shard", data)
    (path,) = kept(tmp_path)
    broken = bytearray(path.read_bytes())
    broken[at] ^= 1 << 3
    path.write_bytes(bytes(broken))
    assert cache.get("shard") is None
    assert not path.exists()
    cache.put("shard", data)
    assert cache.get("shard") == data


def test_a_file_that_was_cut_short_is_none(tmp_path):
    cache = ShardCache(tmp_path, 1000)
    cache.put("shard", b"0123456789")
    (path,) = kept(tmp_path)
    for left in range(path.stat().st_size):
        path.write_bytes(path.read_bytes()[:left])
        assert cache.size("shard") is None
        assert cache.get("shard") is None
        cache.put("shard", b"0123456789")
        assert cache.get("shard") == b"0123456789"


def test_threads_that_put_at_once_don_t_take_each_others_files(tmp_path):
    """Where there is room for two and a half."""
    cache = ShardCache(tmp_path, 25_000)

    def put(index: int) -> bool:
        cache.put(f"shard {index}", bytes([index]) * 9_900)
        return cache.get(f"shard {index}") in (None, bytes([index]) * 9_900)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(put, range(60)))
    assert len(kept(tmp_path)) == 2
    assert cache.holds(9_900)  # none failed
    assert {path.suffix for path in tmp_path.iterdir()} == {"", ".shard"}


def use(folder: Path, seed: int) -> int:
    """How many of the reads found something, after putting and getting in a random order."""
    cache, rng, found = ShardCache(folder, 5000), np.random.default_rng(seed), 0
    for index in rng.integers(0, 30, 150).tolist():
        data = cache.get(f"shard {index}")
        assert data in (None, bytes([index]) * 400)
        found += data is not None
        if data is None:
            cache.put(f"shard {index}", bytes([index]) * 400)
    return found


@pytest.mark.slow
def test_processes_share_it(tmp_path):
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        assert all(found > 10 for found in pool.map(use, [tmp_path] * 2, range(2)))
    assert size_of(tmp_path) <= 5000
    assert int((tmp_path / "used").read_text()) >= size_of(tmp_path)


def test_what_writers_that_died_have_left_goes(tmp_path):
    half = tmp_path / f"{'0' * 40}.half"
    half.write_bytes(bytes(900))
    (tmp_path / "used").write_text("no number")
    cache = ShardCache(tmp_path, 1000)
    cache.put("shard", bytes(500))
    assert cache.get("shard") == bytes(500)
    assert not half.exists()


# --- what goes wrong --------------------------------------------------------------------------------------------------


def full(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def no_room(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(shard_cache.os, "fsync", no_room)


def a_file(folder: Path, patch: pytest.MonkeyPatch) -> None:
    folder.write_text("")


def below_a_file(folder: Path, patch: pytest.MonkeyPatch) -> None:
    folder.symlink_to(Path(__file__) / "cache")


def no_locks(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def refuse(file: Any, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    patch.setattr(shard_cache.fcntl, "flock", refuse)


@pytest.mark.parametrize("trouble", [full, a_file, below_a_file, no_locks])
def test_where_it_can_t_be_written_it_says_so_once_and_tries_again_later(tmp_path, monkeypatch, caplog, trouble):
    cache = ShardCache(tmp_path / "cache", 10**6)
    with pytest.MonkeyPatch.context() as patch:
        trouble(tmp_path / "cache", patch)
        for index in range(3):
            with cache.alone(f"shard {index}"):
                cache.put(f"shard {index}", b"data")
            assert cache.get(f"shard {index}") is None
            assert not cache.holds(4)
            cache._rests_until = 0.0
    (record,) = caplog.records
    assert f"the cache in {tmp_path / 'cache'} can't be written (" in record.getMessage()
    if trouble in (a_file, below_a_file):
        (tmp_path / "cache").unlink()
    cache.put("shard", b"data")
    assert cache.get("shard") == b"data"
    assert not list((tmp_path / "cache").glob("*.half"))


def test_what_goes_wrong_around_a_lock_is_raised(tmp_path):
    with pytest.raises(FileNotFoundError, match="of the store"), ShardCache(tmp_path, 1000).alone("shard"):
        raise FileNotFoundError("of the store")


def test_what_may_only_be_read_is_read(tmp_path, monkeypatch):
    cache = ShardCache(tmp_path, 1000)
    cache.put("shard", b"data")

    def refuse(*at: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    assert cache.get("shard") == b"data"
