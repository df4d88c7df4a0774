"""What isn't taken of a corpus, and modalities that are null everywhere, as `plan`, `run` and `status` tell of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from corpus_files import parquet_bytes, tar_bytes
from in_process import weave, without_ray
from tokenloom.pipeline.checks.status import LedgerCounts, read_status
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.dataset.manifest import manifest_numbers, require_manifest
from tokenloom.pipeline.storage.store import Store
from weaving import labels_of, odd, recipe

pytestmark = pytest.mark.slow

CAPTIONS = {"caption": {"keep": "labels"}}


def test_plan_run_and_status_tell_what_is_left_out(tokenloom: Callable[..., str], photos, tmp_path: Path):
    """A folder as a camera leaves it, tables of others beside it; and no captions where they are looked for."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, photo in photos.items():
        (folder / f"{name}.jpg").write_bytes(photo)
        (folder / f"{name}.json").write_text(json.dumps({"description": name, "likes": 3}))
    (folder / "coffee.mov").write_bytes(bytes(range(256)))
    for name in ("a.heic", "b.heic", "IMG_0001", "metadata.csv"):
        (folder / name).write_bytes(b"id,label\n1,2\n")
    out, words = tmp_path / "out", ("--corpus", folder, "--output", tmp_path / "out")
    names = "1 other file left out: IMG_0001"
    images = "2 images of formats that are not read left out: a.heic, b.heic"
    table = "metadata.csv isn't used: it has no column 'file_name'"
    with without_ray():
        planned = tokenloom("plan", "quickstart", *words)
        assert names in planned
        assert table in planned
        assert "labels of caption are null; the fields of these samples are: description, likes" in planned
        assert "1 file beside an image that is no text left out: coffee.mov" in planned
        ran = tokenloom("run", "quickstart", *words)
        told = tokenloom("status", out)
        for text in (ran, told):
            assert names in text
            assert images in text
            assert table in text
            assert "1 file beside an image that is no text left out: coffee.mov" in text
            assert "caption is null for every sample" in text
            assert "metadata is null" not in text
        planned = tokenloom("plan", "quickstart", *words)
        assert "looked at (all, or 256); the fields of the corpus are: description, likes" in planned
        assert "left out" in tokenloom("quarantine", out)
        assert json.loads(tokenloom("status", out, "--json"))["null"] == ["caption"]
        assert verify(str(out)).faults == []


@pytest.mark.parametrize("keep", ["labels", "both"])
def test_a_modality_that_is_null_everywhere_is_found_and_one_that_is_not_is_not(tmp_path, photos, keep):
    captions = [None] * 11 + ["one"]
    columns = {"jpg": [photos["coffee"]] * 12, "key": list("abcdefghijkl"), "caption": captions, "other": [None] * 12}
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(columns))
    modalities = {"caption": {"keep": keep}, "mean_colour": odd("MeanColour")}
    made = recipe(tmp_path / "a.parquet", tmp_path / "out", modalities, units={"samples": 3}, views={"size": 32})
    tally = weave(made)
    assert tally.null == []
    assert read_status(Store(tmp_path / "out")).null == []
    nothing = {"caption": {"keep": keep, "params": {"field": "other"}}, "mean_colour": odd("MeanColour")}
    made = recipe(tmp_path / "a.parquet", tmp_path / "none", nothing, units={"samples": 3}, views={"size": 32})
    tally = weave(made)
    assert (tally.null, sum(tally.failed.values())) == (["caption"], 0)
    ledgers = LedgerCounts(Store(tmp_path / "none"))
    assert [read_status(Store(tmp_path / "none"), ledgers).null for _ in range(2)] == [["caption"]] * 2


def test_what_failed_everywhere_is_not_called_null(tmp_path, corpus_folder):
    failing = {"mean_colour": odd("ForgetsOne")}
    made = recipe(corpus_folder, tmp_path / "out", failing, units={"samples": 3}, max_failures=1.0)
    tally = weave(made)
    assert (tally.null, sum(tally.failed.values())) == ([], 6)
    assert read_status(Store(tmp_path / "out")).null == []


def test_what_lies_in_shards_is_told_and_is_no_failure(tmp_path, photos):
    members = [(f"{name}{end}", photo) for name, photo in photos.items() for end in (".jpg", ".left.jpg", ".right.jpg")]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    modalities = {"mean_colour": odd("MeanColour")}
    made = recipe(tmp_path / "a.tar", tmp_path / "out", modalities, units={"samples": 1}, max_failures=0.0)
    tally = weave(made)
    assert (tally.samples, tally.rejected, len(tally.whole.notes)) == (6, 0, 6)
    status = read_status(Store(tmp_path / "out"))
    assert (status.refused, len(status.left_out), status.notes) == (0, 3, 3)
    line = "2 further images of samples left out: astronaut.left.jpg, astronaut.right.jpg ("
    assert status.left_out[0].startswith(line)
    assert verify(str(tmp_path / "out"), deep=True).faults == []


def test_the_manifest_changes_with_what_is_left_out_and_not_otherwise(corpus_folder, tmp_path):
    made, store = recipe(corpus_folder, tmp_path / "out", CAPTIONS), Store(tmp_path / "out")
    weave(made)
    weave(made)
    before = manifest_numbers(store)
    (corpus_folder / "x.heic").write_bytes(b"1")
    weave(made)
    weave(made)
    assert len(manifest_numbers(store)) == len(before) + 1
    assert len(require_manifest(store).corpus.left_out) == 1


@pytest.mark.parametrize("form", ["jsonl", "parquet", "tar"])
def test_captions_under_text_are_captions(tmp_path, photos, form):
    folder = tmp_path / "corpus"
    folder.mkdir()
    texts = {name: f"this is {name}" for name in photos}
    if form == "jsonl":
        rows = [json.dumps({"file_name": f"{name}.jpg", "text": text}) for name, text in texts.items()]
        (folder / "metadata.jsonl").write_text("\n".join(rows))
        for name, photo in photos.items():
            (folder / f"{name}.jpg").write_bytes(photo)
    elif form == "parquet":
        columns = {"key": list(texts), "image": list(photos.values()), "text": list(texts.values())}
        (folder / "a.parquet").write_bytes(parquet_bytes(columns))
    else:
        members = [(f"{name}.jpg", photo) for name, photo in photos.items()]
        members += [(f"{name}.text", text.encode()) for name, text in texts.items()]
        (folder / "a.tar").write_bytes(tar_bytes(sorted(members)))
    weave(recipe(folder, tmp_path / "out", CAPTIONS))
    assert {key: (text or b"").decode() for (key, _), text in labels_of(tmp_path / "out", "caption").items()} == texts


def test_a_value_in_one_unit_of_many_is_found(tmp_path, photos):
    """Captions that begin late in the corpus."""
    columns = {"jpg": [photos["coffee"]] * 12, "key": list("abcdefghijkl"), "caption": [None] * 7 + ["x"] + [None] * 4}
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(columns))
    made = recipe(tmp_path / "a.parquet", tmp_path / "out", {"caption": {"keep": "labels"}}, units={"samples": 1})
    assert weave(made).null == []
