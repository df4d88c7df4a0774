"""Storage that takes its time is told of on stderr."""

from __future__ import annotations

import sys
import threading
import time

import pytest
from fsspec import register_implementation
from tokenloom.pipeline.storage import objects, slow
from tokenloom.pipeline.storage.store import Store


def test_a_request_that_takes_long_is_told_once(monkeypatch: pytest.MonkeyPatch):
    """Until it has been told, and for a while longer."""
    said: list[str] = []
    monkeypatch.setattr(slow, "_PATIENCE", 0.1)
    monkeypatch.setattr(slow, "_EVERY", 0.02)
    monkeypatch.setattr(slow, "print", lambda text, **where: said.append(text), raising=False)
    store = Store("memory://slow")
    store.replace("a", b"1")
    quick, takes_long = objects.ObjectFiles.read, [False, True, False, True]

    def read(files: objects.ObjectFiles, path: str) -> bytes:
        before, until = len(said), time.monotonic() + 60
        if takes_long.pop(0):
            while len(said) == before and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.1)
        return quick(files, path)

    monkeypatch.setattr(objects.ObjectFiles, "read", read)
    while takes_long:
        assert store.read("a") == b"1"
    assert said == ["tokenloom: still trying to read memory://slow/a, for 0 s now"] * 2
    time.sleep(0.1)
    assert "slow storage" not in {thread.name for thread in threading.enumerate()}


def test_a_client_that_takes_long_to_import_is_no_slow_storage(monkeypatch, tmp_path, capfd):
    code = "import time; from fsspec.implementations.memory import MemoryFileSystem; time.sleep(0.3)"
    (tmp_path / "takes_long.py").write_text(f"{code}\nclass Client(MemoryFileSystem): protocol = 'drowsy'")
    monkeypatch.syspath_prepend(tmp_path)
    register_implementation("drowsy", "takes_long.Client")
    monkeypatch.setattr(slow, "_PATIENCE", 0.1)
    monkeypatch.setattr(slow, "_EVERY", 0.02)
    assert not Store("drowsy://slow").exists("a")
    assert "takes_long" in sys.modules
    assert capfd.readouterr().err == ""
