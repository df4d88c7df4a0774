"""Files that are being written: what writers that died leave is removed, and one that lives writes again."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tokenloom.pipeline.storage import local as storage_local
from tokenloom.pipeline.storage.store import Store


def test_a_killed_writer_leaves_nothing_visible_and_is_cleaned_up(tmp_path, monkeypatch):
    script = (
        "import os, signal; from tokenloom.pipeline.storage.store import Store\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"Store({str(tmp_path)!r}).create('deep/a', b'x' * 100)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    left = list((tmp_path / "deep").iterdir())
    assert len(left) == 1
    store = Store(tmp_path)
    assert store.list() == []
    assert not store.exists("deep/a")

    mine = tmp_path / "deep" / f".tmp-{storage_local._host()}-{os.getpid()}-0"
    elsewhere = tmp_path / "deep" / ".tmp-other-host-7-1-0"
    old = tmp_path / "deep" / ".tmp-other-host-7-1-1"
    foreign = tmp_path / "deep" / ".tmp-somebody's"
    for path in (mine, elsewhere, old, foreign):
        path.write_bytes(b"")
    for path in (old, foreign):
        os.utime(path, (now := path.stat().st_mtime - 6, now))
    monkeypatch.setattr(time, "time", lambda: 0.0)  # this host's clock is off
    store.remove_stale_temporaries()
    assert sorted((tmp_path / "deep").iterdir()) == sorted([mine, elsewhere, foreign])


def test_who_cleans_up_and_is_killed_leaves_what_the_next_removes(tmp_path):
    script = (
        "import os, signal; from tokenloom.pipeline.storage.store import Store\n"
        "os.fstat = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"Store({str(tmp_path)!r}).remove_stale_temporaries()"
    )
    (tmp_path / ".tmp-other-host-7-1-0").write_bytes(b"")
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    assert len(list(tmp_path.iterdir())) == 2
    Store(tmp_path).remove_stale_temporaries()
    assert list(tmp_path.iterdir()) == []


def test_what_may_not_be_removed_stops_nobody(tmp_path, monkeypatch):
    """As another user's, in a folder of theirs."""
    theirs, mine = tmp_path / ".tmp-a-host-7-1-0", tmp_path / ".tmp-b-host-7-1-0"
    for path in (theirs, mine):
        path.write_bytes(b"")
        os.utime(path, (0, 0))
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path == theirs:
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    Store(tmp_path).remove_stale_temporaries()
    assert list(tmp_path.iterdir()) == [theirs]


@pytest.mark.parametrize("write", [Store.create, Store.replace])
def test_a_writer_that_was_taken_for_dead_writes_again(tmp_path, monkeypatch, write):
    store, taken, sync = Store(tmp_path), [], os.fsync

    def slow(descriptor: int) -> None:
        sync(descriptor)
        names = [path for path in (tmp_path / "deep").iterdir() if path.name.startswith(".tmp-")]
        if names and len(taken) < 3:
            taken.extend(names)
            os.utime(names[0], (0, 0))
            Store(tmp_path).remove_stale_temporaries()

    monkeypatch.setattr(os, "fsync", slow)
    write(store, "deep/a", b"all of it")
    assert len(set(taken)) == 3
    assert [path.read_bytes() for path in (tmp_path / "deep").iterdir()] == [b"all of it"]
