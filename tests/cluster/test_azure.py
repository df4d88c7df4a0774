"""A dataset on Azure's blob storage, as Azurite answers for it: the same bytes as on a disk, created once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_head import CLUSTER

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's, which its documentation tells."""

PORT = 24_637

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not shutil.which("azurite-blob"), reason="Azurite isn't installed (npm install azurite)"),
]

UP = """
import json, sys, fsspec
from pathlib import Path
from tokenloom.pipeline.storage.store import Store
fsspec.filesystem("az").mkdir("box")
for path in Path(sys.argv[1]).iterdir():
    assert Store("az://box/photos").create(path.name, path.read_bytes())
"""

DOWN = """
import hashlib, json
from tokenloom.pipeline.storage.store import Store
data = Store("az://box/data")
print(json.dumps({entry.name: hashlib.sha256(data.read(entry.name)).hexdigest() for entry in data.list()}))
"""

ONCE = """
from tokenloom.pipeline.storage.store import Store
box = Store("az://box/once")
assert box.create("manifest", b"first") and not box.create("manifest", b"second")
assert box.read("manifest") == b"first" and box.read_range("manifest", 3, 99) == b"st"
assert box.read_range("manifest", 9, 12) == b""
box.replace("manifest", b"third")
assert [(entry.name, entry.size) for entry in box.list()] == [("manifest", 5)]
assert box.children() == ["manifest"] and box.exists("manifest") and not box.exists("other")
box.delete("manifest")
box.delete("manifest")
assert box.list() == []
"""


@pytest.fixture(scope="module")
def azure() -> Iterator[dict[str, str]]:
    """The environment of a process that finds Azurite."""
    words = f"--inMemoryPersistence --silent --disableTelemetry --skipApiVersionCheck --blobPort {PORT}"
    server = subprocess.Popen(["azurite-blob", *words.split()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        began = time.monotonic()
        while socket.socket().connect_ex(("127.0.0.1", PORT)):
            assert time.monotonic() - began < 60, "Azurite didn't start"
            time.sleep(0.1)
        yield {**os.environ, "AZURE_STORAGE_CONNECTION_STRING": connection(KEY)}
    finally:
        server.terminate()
        server.wait(timeout=60)


def connection(key: str) -> str:
    endpoint = f"http://127.0.0.1:{PORT}/devstoreaccount1"
    return f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};BlobEndpoint={endpoint};"


def python(code: str, environment: dict[str, str], *arguments: object) -> str:
    command = [CLUSTER / "python", "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout


def tokenloom(*words: object, environment: dict[str, str], cwd: Path) -> tuple[int, str]:
    command = [CLUSTER / "python", "-m", "tokenloom.pipeline.cli", *map(str, words)]
    done = subprocess.run(
        command, env=environment, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    return done.returncode, done.stdout


def test_a_dataset_on_azure_is_that_of_a_disk(azure, small_corpus, tmp_path):
    python(UP, azure, small_corpus)
    for place in ("az://box/data", tmp_path / "data"):
        words = ("run", "quickstart", "--corpus", "az://box/photos", "--output", place, "--set", "units.samples=4")
        code, said = tokenloom(*words, environment=azure, cwd=tmp_path)
        assert code == 0, said
    code, said = tokenloom("verify", "az://box/data", "--deep", environment=azure, cwd=tmp_path)
    assert code == 0, said
    here = {
        str(path.relative_to(tmp_path / "data")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "data").rglob("*")
        if path.is_file()
    }
    there = json.loads(python(DOWN, azure))
    assert there.keys() == here.keys()
    assert {name for name in here if here[name] != there[name]} == set()


def test_an_object_of_azure_is_created_once(azure):
    python(ONCE, azure)


@pytest.mark.parametrize(
    ("output", "key", "words"),
    [
        ("az://nobody/data", KEY, "The bucket does not exist"),
        ("az://box/other", "Z" + KEY[1:], "These credentials aren't known there"),
        ("az://box/other", None, "Set the credentials"),
    ],
    ids=["container", "key", "none"],
)
def test_what_azure_refuses_is_named_with_the_way_out(azure, small_corpus, tmp_path, output, key, words):
    environment = {**azure, "AZURE_STORAGE_CONNECTION_STRING": connection(key)} if key else {**os.environ}
    given = ("run", "quickstart", "--corpus", small_corpus, "--output", output)
    code, said = tokenloom(*given, environment=environment, cwd=tmp_path)
    assert code == 1, said
    assert words in said
    assert output in said
    assert "Traceback" not in said
    assert KEY[5:] not in said
