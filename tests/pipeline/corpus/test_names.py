"""Names that are no text: told of escaped, wherever they are told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from corpus_files import contents, corpus_of, left_out
from in_process import weave
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.corpus.names import clean_key
from tokenloom.pipeline.dataset.manifest import require_manifest
from tokenloom.pipeline.plan.recipe import parse_recipe
from tokenloom.pipeline.storage.store import Store


def named(folder: Path, name: bytes, data: bytes = b"1") -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(data)


@pytest.mark.parametrize(
    ("name", "key"),
    [("été", "été"), ("\udcff", "\\xff"), ("a\udce9b\udc80", "a\\xe9b\\x80"), ("\ud800.jpg", "\\ud800.jpg")],
)
def test_a_name_as_text(name, key):
    assert clean_key(name) == key


@pytest.mark.parametrize("name", [b"\xff.heic", b"caf\xe9.tar", b"\x80.txt", b"sub\xfe", b"\xff\xff.jp2"])
def test_a_file_left_out_whose_name_is_no_utf8_is_named_in_the_manifest(photos, tmp_path, name):
    corpus, output = tmp_path / os.fsdecode(b"corpus\xf0"), tmp_path / "out"
    corpus.mkdir()
    (corpus / "coffee.jpg").write_bytes(photos["coffee"])
    named(corpus, name)
    (corpus / "metadata.jsonl").write_text(json.dumps({"file_name": "\ud800.jpg", "text": "\udcff"}))
    labels = {"caption": {"keep": "labels"}}
    images = {"url": str(corpus), "format": "folder"}
    made = parse_recipe({"corpus": images, "output": str(output), "modalities": labels})
    assert weave(made).samples == 1
    card = require_manifest(Store(output)).corpus
    assert any(f"left out: {clean_key(os.fsdecode(name))} (" in line for line in card.left_out)
    assert any("left out: \\ud800.jpg (" in line for line in card.left_out)
    assert card.url == [str(corpus)]
    assert weave(made).samples == 0
    assert verify(str(output)).faults == []


def test_a_table_of_such_a_name_that_is_not_used(tmp_path):
    folder = tmp_path / os.fsdecode(b"\xe9")
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"1")
    (folder / "metadata.csv").write_bytes(b"")
    corpus = corpus_of(str(tmp_path))
    assert list(contents(corpus)[0]) == ["\\xe9/a"]
    json.dumps(left_out(corpus), ensure_ascii=False).encode()
