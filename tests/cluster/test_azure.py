"""A dataset on Azure's blob storage, as Azurite answers for it: the same bytes as on a disk, created once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from other_stores import Client, await_port, check_created_once, check_dataset
from ray_head import CLUSTER

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's, which its documentation tells."""

PORT = 24_637

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not shutil.which("azurite-blob"), reason="Azurite isn't installed (npm install azurite)"),
]


@pytest.fixture(scope="module")
def azure() -> Iterator[Client]:
    """Of Azurite."""
    words = f"--inMemoryPersistence --silent --disableTelemetry --skipApiVersionCheck --blobPort {PORT}"
    server = subprocess.Popen(["azurite-blob", *words.split()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        await_port(PORT)
        yield client(KEY)
    finally:
        server.terminate()
        server.wait(timeout=60)


def client(key: str | None) -> Client:
    endpoint = f"http://127.0.0.1:{PORT}/devstoreaccount1"
    words = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};BlobEndpoint={endpoint};"
    named = {"AZURE_STORAGE_CONNECTION_STRING": words} if key else {}
    return Client(CLUSTER / "python", {**os.environ, **named})


def test_a_dataset_on_azure_is_that_of_a_disk(azure, small_corpus, tmp_path):
    check_dataset(azure, "az://box", small_corpus, tmp_path)


def test_an_object_of_azure_is_created_once(azure):
    check_created_once(azure, "az://once")


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
    code, said = client(key).tokenloom("run", "quickstart", "--corpus", small_corpus, "--output", output, cwd=tmp_path)
    assert code == 1, said
    assert words in said
    assert output in said
    assert '  File "' not in said
    assert KEY[5:] not in said
