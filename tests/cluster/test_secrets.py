"""Planted secrets, looked for wherever a run, a job and a check-up leave something or show something."""

from __future__ import annotations

import functools
import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from corpus_files import tar_bytes
from ray_head import CLIENT, GCS, Head, asked
from tokenloom.pipeline.storage.store import Store

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "PLANTEDKEYOFENV",
    "AWS_SECRET_ACCESS_KEY": "planted-secret-of-env",
    "AWS_SESSION_TOKEN": "planted-token-of-env",
}
KEY, SECRET = "tokenloom", "tokenloom-secret"
"""Of the tests' S3 server: what a recipe has to hold in order to reach it. The key is a word that stands everywhere."""
USER, PASSWORD = "planted-user", "planted-password"
SECRETS = [text.encode() for text in (*ENVIRONMENT.values(), SECRET, PASSWORD)]
TOLD_BY_RAY = [
    "/api/jobs/",
    *(f"/api/v0/{what}?detail=1&limit=10000" for what in ("actors", "tasks", "jobs", "workers", "runtime_envs")),
    "/logical/actors",
    "/nodes?view=summary",
]


def found_in(data: bytes) -> list[str]:
    return [secret.decode() for secret in SECRETS if secret in data]


@pytest.fixture
def corpus(small_corpus: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of a tar on a web server, with a password; one of its pictures is broken."""
    folder = tmp_path / "served"
    folder.mkdir()
    files = [(path.name, path.read_bytes()) for path in sorted(small_corpus.iterdir())]
    (folder / "a.tar").write_bytes(tar_bytes([*files, ("broken.jpg", b"\xff\xd8broken")]))
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{USER}:{PASSWORD}@127.0.0.1:{server.server_port}/a.tar"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def titles_watched() -> Iterator[set[str]]:
    """What processes are called while the block runs, as far as there are secrets in it."""
    found: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    found.update(found_in(path.read_bytes()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


@pytest.mark.s3
def test_no_secret_is_left_or_shown_anywhere(head: Head, s3_url: str, corpus: str, tmp_path: Path):
    options = {"key": KEY, "secret": SECRET, "token": None}
    recipe = {
        "corpus": corpus,
        "output": f"{s3_url}/out",
        "modalities": ["canny_edge", "caption"],
        "storage_options": options,
        "resources": {"workers": 1},
    }
    (tmp_path / "secret.yaml").write_text(yaml.safe_dump(recipe))
    wrong = {**recipe, "output": "s3://no-such-bucket/out"}
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    plain = {**recipe, "corpus": str(tmp_path / "served/a.tar"), "output": f"{s3_url}/plain", "storage_options": {}}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(plain))
    client = f"ray://127.0.0.1:{CLIENT}"
    planted = {**ENVIRONMENT, "RAY_ADDRESS": f"127.0.0.1:{GCS}"}
    said = {}
    with titles_watched() as titles:
        for words, code in [
            (("doctor", "secret.yaml"), 0),
            (("run", "secret.yaml"), 0),
            (("run", "wrong.yaml"), 1),
            (("doctor", "wrong.yaml"), 1),
            (("submit", "secret.yaml", "--address", head.address), 2),
            (("submit", "plain.yaml", "--address", head.address), 0),
            (("doctor", "plain.yaml", "--address", head.address), 0),
            (("doctor", "secret.yaml", "--address", client), 2),
            (("doctor", "plain.yaml", "--address", client), 0),
        ]:
            ended, said[words] = head.command(*words, cwd=tmp_path, **planted)
            assert ended == code, said[words]
    for words in (("submit", "secret.yaml", "--address", head.address), ("doctor", "secret.yaml", "--address", client)):
        for key in ("storage_options.secret", "corpus.url"):
            assert f"{key}: holds a credential" in said[words]

    store = Store(s3_url)
    objects = {entry.name: store.read(entry.name) for entry in store.list()}
    assert any("/quarantine/" in name for name in objects)
    assert any("/manifests/" in name for name in objects)
    time.sleep(2)  # tasks and logs are reported a little later
    logs = {str(path): path.read_bytes() for path in (head.folder / "ray").rglob("*") if path.is_file()}
    assert any("driver" in name for name in logs)
    shown = {path: repr(asked(head, path)).encode() for path in TOLD_BY_RAY}
    assert b"StageWorker" in shown["/logical/actors"]
    places = {**{" ".join(words): text.encode() for words, text in said.items()}, **objects, **logs, **shown}
    assert {name: found for name, data in places.items() if (found := found_in(data))} == {}
    assert titles == set()
