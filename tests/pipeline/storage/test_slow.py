"""Storage that takes its time is told of on stderr."""

from __future__ import annotations

import threading
import time

import pytest
from tokenloom.pipeline.storage import objects, slow
from tokenloom.pipeline.storage.store import Store


def test_a_request_that_takes_long_is_told_once(capfd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(slow, "_PATIENCE", 0.1)
    monkeypatch.setattr(slow, "_EVERY", 0.02)
    store = Store("memory://slow")
    store.replace("a", b"1")
    quick, waits = objects.ObjectFiles.read, [0.0, 0.4, 0.0, 0.4]

    def read(files: objects.ObjectFiles, path: str) -> bytes:
        time.sleep(waits.pop(0))
        return quick(files, path)

    monkeypatch.setattr(objects.ObjectFiles, "read", read)
    while waits:
        assert store.read("a") == b"1"
    told = "tokenloom: still trying to read memory://slow/a, for 0 s now\n"
    assert capfd.readouterr().err == told * 2
    time.sleep(0.1)
    assert "slow storage" not in {thread.name for thread in threading.enumerate()}
