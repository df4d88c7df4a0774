"""Object stores that aren't S3, as emulators answer for them: what every one of them has to do, in processes that have
their clients."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import time
from pathlib import Path

_UP = """
import sys, fsspec
from pathlib import Path
from tokenloom.pipeline.storage.store import Store
url = sys.argv[1]
fsspec.filesystem(url.partition(":")[0]).mkdir("box")
for path in Path(sys.argv[2]).iterdir():
    assert Store(f"{url}/photos").create(path.name, path.read_bytes())
"""

_DOWN = """
import hashlib, json, sys
from tokenloom.pipeline.storage.store import Store
data = Store(sys.argv[1])
print(json.dumps({entry.name: hashlib.sha256(data.read(entry.name)).hexdigest() for entry in data.list()}))
"""

_ONCE = """
import sys, fsspec
from concurrent.futures import ThreadPoolExecutor
from tokenloom.pipeline.storage.store import StorageError, Store
fsspec.filesystem(sys.argv[1].partition(":")[0]).mkdir(sys.argv[1].rpartition("/")[2])
box = Store(f"{sys.argv[1]}/below")
assert box.create("manifest", b"first") and not box.create("manifest", b"second")
assert box.read("manifest") == b"first" and box.read_range("manifest", 3, 99) == b"st"
assert box.read_range("manifest", 9, 12) == b""
box.replace("manifest", b"third")
assert [(entry.name, entry.size) for entry in box.list()] == [("manifest", 5)]
assert box.children() == ["manifest"] and box.exists("manifest") and not box.exists("other")
with ThreadPoolExecutor(8) as writers:
    assert sum(writers.map(lambda number: box.create("contested", b"%d" % number), range(16))) == 1
for name in ("manifest", "contested", "contested"):
    box.delete(name)
assert box.list() == []
for name in ("a?versionId=1.jpg", "a?versionid=2.jpg", "a?generation=3", "b?versionid=4/a"):
    assert box.create(name, name.encode()) and box.read(name) == name.encode() and box.size(name) == len(name)
assert len(box.list()) == 4 and box.children("b?versionid=4") == ["a"] and not box.exists("a")
box.create("empty", b"")
assert box.read_range("empty", 0, 9) == b""
none = Store(f"{sys.argv[1]}-that-is-not/below")
asks = [lambda: none.read("a"), lambda: none.exists("a"), lambda: none.create("a", b""), none.list, none.children]
for action in asks:
    try:
        raise AssertionError(action())
    except StorageError as error:
        assert "The bucket does not exist: create it" in str(error), error
"""


class Client:
    """Processes of one Python, in an environment that leads to an emulator."""

    def __init__(self, python: Path, environment: dict[str, str]) -> None:
        self.python, self.environment = python, environment

    def tokenloom(self, *words: object, cwd: Path) -> tuple[int, str]:
        done = subprocess.run(
            [self.python, "-m", "tokenloom.pipeline.cli", *map(str, words)],
            env=self.environment,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout

    def run(self, code: str, *arguments: object) -> str:
        command = [self.python, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout


def await_port(port: int) -> None:
    began = time.monotonic()
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() - began < 60, "the emulator didn't start"
        time.sleep(0.1)


def check_dataset(client: Client, box: str, corpus: Path, folder: Path) -> None:
    """A dataset in the store has the bytes of one on a disk. box: the URL of a container that is made for it."""
    client.run(_UP, box, corpus)
    for place in (f"{box}/data", folder / "data"):
        words = ("run", "quickstart", "--corpus", f"{box}/photos", "--output", place, "--set", "units.samples=4")
        code, said = client.tokenloom(*words, cwd=folder)
        assert code == 0, said
    code, said = client.tokenloom("verify", f"{box}/data", "--deep", cwd=folder)
    assert code == 0, said
    here = {
        str(path.relative_to(folder / "data")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "data").rglob("*")
        if path.is_file()
    }
    there = json.loads(client.run(_DOWN, f"{box}/data"))
    assert there.keys() == here.keys()
    assert {name for name in here if here[name] != there[name]} == set()


def check_created_once(client: Client, box: str) -> None:
    """Objects are created where there is none, whoever else tries, and listed, read, replaced and deleted, whatever
    their names; a bucket that isn't there is told. box: as of `check_dataset`."""
    client.run(_ONCE, box)
