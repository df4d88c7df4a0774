"""Tables beside images, as Hugging Face's imagefolder has them."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import contents, corpus_of, left_out, parquet_bytes, put_all
from in_process import weave
from pyarrow import csv
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.corpus import tables
from tokenloom.pipeline.corpus.corpus import CorpusError, UnitLimits
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.storage.store import Store
from weaving import labels_of, recipe

ROWS = [
    {"file_name": "a.jpg", "text": 'a cat, "quoted"\nand broken', "score": 0.5, "note": None},
    {"file_name": "./b.png", "text": "ein Hund, schön", "score": 1.0, "note": "x"},
    {"file_name": "sub/c.jpg", "text": "42", "score": 2.0, "note": None},
]


def table_bytes(ending: str, rows: list[dict[str, Any]]) -> bytes:
    if ending == "jsonl":
        return "\n".join(json.dumps(row) for row in rows).encode()
    file = io.BytesIO()
    (csv.write_csv if ending == "csv" else pq.write_table)(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def with_images(place: Store, *names: str) -> Store:
    put_all(place, {f"train/{name}": b"1" for name in names or ("a.jpg", "b.png", "sub/c.jpg", "sub/d.jpg")})
    return place


def test_few_bytes_that_stand_for_many_rows_are_not_read(place, monkeypatch):
    rows = pa.table({"file_name": ["a.jpg"] * 9000, "text": ["a cat" * 100] * 9000})
    file = io.BytesIO()
    pq.write_table(rows, file)
    with_images(place, "a.jpg").create("train/metadata.parquet", file.getvalue())
    assert len(file.getvalue()) < 9000
    assert left_out(corpus_of(place.url)) == []  # few rows
    for name, most, reason in (("_FEW_ROWS", 8999, "9,000 rows in"), ("_LARGEST", 2**20, "more than 1,048,576 bytes")):
        with monkeypatch.context() as patched:
            patched.setattr(tables, name, most)
            patched.setattr(tables, "_kept", {})
            (told,) = left_out(corpus_of(place.url))
        assert "train/metadata.parquet isn't used: it can't be read" in told
        assert reason in told


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_row_is_its_images_fields_also_in_folders_below(place, ending):
    with_images(place).create(f"train/metadata.{ending}", table_bytes(ending, ROWS))
    for url in (place.url, f"{place.url}/train"):
        corpus = corpus_of(url)
        samples, refused = contents(corpus)
        fields = {key.removeprefix("train/"): sample.fields for key, sample in samples.items()}
        assert refused == []
        empty, scores = ("", ["0.5", "1", "2"]) if ending == "csv" else (None, [0.5, 1.0, 2.0])
        assert fields == {
            "a": {"text": ROWS[0]["text"], "score": scores[0], "note": empty},
            "b": {"text": ROWS[1]["text"], "score": scores[1], "note": "x"},
            "sub/c": {"text": "42", "score": scores[2], "note": empty},
            "sub/d": {},
        }
        assert left_out(corpus) == []
    assert set(contents(corpus_of(place.url, fields=["score"]))[0]["train/a"].fields) == {"score"}


def test_digits_in_csv_are_texts(place):
    rows = b"file_name,text,house,day\na.jpg,000,7,2024-01-01\nb.png,005,12a,\n"
    with_images(place).create("train/metadata.csv", rows)
    samples, _ = contents(corpus_of(place.url))
    assert samples["train/a"].fields == {"text": "000", "house": "7", "day": "2024-01-01"}
    assert samples["train/b"].fields == {"text": "005", "house": "12a", "day": ""}


def test_what_lies_nearer_holds(place):
    with_images(place).create("train/metadata.jsonl", table_bytes("jsonl", ROWS))
    place.create("train/sub/metadata.csv", b"file_name,text\nc.jpg,nearer\n")
    place.create("train/a.txt", b"nearest")
    fields = {key: sample.fields for key, sample in contents(corpus_of(place.url))[0].items()}
    assert (fields["train/a"]["caption"], fields["train/a"]["score"]) == ("nearest", 0.5)
    assert (fields["train/sub/c"]["text"], fields["train/sub/c"]["score"]) == ("nearer", 2.0)


def test_a_changed_table_makes_another_shard_of_all_that_it_tells_of(place):
    with_images(place).create("train/metadata.csv", b"file_name,text\na.jpg,one\n")
    corpus = corpus_of(place.url)
    ids = [shard.id for shard in corpus.shards()]
    shard = corpus.shards()[0]
    place.replace("train/metadata.csv", b"file_name,text\na.jpg,1\n")
    assert not set(ids) & {shard.id for shard in corpus.shards()}
    with pytest.raises(CorpusError, match=r"metadata.csv has changed, or is gone, since it was listed"):
        list(corpus.read(shard))


def test_rows_of_images_that_are_not_there_and_lines_that_are_none(place):
    lines = [b'{"file_name": "a.jpg", "n": 1}', b"{broken", b'["a list"]', b'{"file_name": "gone.jpg"}', b""]
    with_images(place, "a.jpg", "b.jpg").create("train/metadata.jsonl", b"\n".join(lines))
    corpus = corpus_of(place.url)
    assert [sample.fields for sample in contents(corpus)[0].values()] == [{"n": 1}, {}]
    (line,) = left_out(corpus)
    rows = "row 2 of train/metadata.jsonl, row 3 of train/metadata.jsonl, gone.jpg"
    assert line.startswith(f"3 rows of tables left out: {rows} (")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("metadata.csv", b"id,label\n1,cat\n", "no column 'file_name', which names a row's image, but id, label"),
        ("metadata.csv", "file_name,text\na.jpg,é\n".encode("latin-1"), "can't be read"),
        ("metadata.csv", b"", "can't be read"),
        ("metadata.jsonl", b"[1, 2]", "no column 'file_name'"),
        ("metadata.jsonl", b"", "it has no rows"),
        ("metadata.csv", b"file_name,text\n", "it has no rows"),
        ("metadata.parquet", b"PAR1 and no more", "can't be read"),
    ],
)
def test_a_table_of_something_else_costs_its_own_fields_alone(place, name, data, words):
    with_images(place, "a.jpg").create(f"train/{name}", data)
    corpus = corpus_of(place.url)
    samples, refused = contents(corpus)
    assert ([sample.fields for sample in samples.values()], refused) == ([{}], [])
    line = left_out(corpus)[0]
    assert line.startswith(f"train/{name} isn't used: ")
    assert words in line


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_row_that_cannot_be_used_costs_itself(place, ending):
    deep = b'{"file_name": "b.jpg", "text": ' + b"[" * 300 + b"]" * 300 + b"}"
    data = b'{"file_name": "a.jpg", "text": "one"}\n' + deep
    if ending == "parquet":
        texts = pa.array([b"one", b"\xff\xfe"], pa.binary()).buffers()[1:]
        bad = pa.Array.from_buffers(pa.string(), 2, [None, *texts])
        data = parquet_bytes({"file_name": ["a.jpg", "b.jpg"], "text": bad})
    with_images(place, "a.jpg", "b.jpg").create(f"train/metadata.{ending}", data)
    corpus = corpus_of(place.url)
    samples, refused = contents(corpus)
    assert ([sample.fields for sample in samples.values()], refused) == ([{"text": "one"}, {}], [])
    (line,) = left_out(corpus)
    assert line.startswith(f"1 row of a table left out: row 2 of train/metadata.{ending} (")


def test_rows_that_name_no_image_are_told_of_one_by_one(place):
    with_images(place, "a.jpg").create("train/metadata.csv", b"file_name,text\n/a.jpg,one\n../a.jpg,two\n")
    (line,) = left_out(corpus_of(place.url))
    assert line.startswith("2 rows of tables left out: row 1 of train/metadata.csv, row 2 of train/metadata.csv (")


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_table_is_parsed_once_for_all_folders_and_stretches(place, monkeypatch, ending):
    names = [f"{folder}/{image}.jpg" for folder in range(3) for image in range(4)]
    with_images(place, *names)
    rows = [{"file_name": name, "text": name} for name in [*names[::-1], "0/0.jpg"]]
    place.create(f"train/metadata.{ending}", table_bytes(ending, rows))
    parsed = []
    monkeypatch.setattr(tables, "_read", lambda *given, read=tables._read: parsed.append(given) or read(*given))
    corpus = corpus_of(place.url)
    for shard in corpus.shards():
        for unit in corpus.read(shard, 0, None, UnitLimits(2)):
            again = corpus_of(place.url).read(shard, unit.unit.start, unit.unit.stop, UnitLimits(2))
            assert [sample.fields["text"] for one in again for sample in one.samples] == [
                sample.key.removeprefix("train/") + ".jpg" for sample in unit.samples
            ]
    assert len(parsed) == 1
    rows[0]["text"] = "longer than it was"
    place.replace(f"train/metadata.{ending}", table_bytes(ending, rows))
    assert contents(corpus)[0]["train/2/3"].fields == {"text": "longer than it was"}
    monkeypatch.setattr(tables, "_MOST_KEPT", 10)
    assert contents(corpus)[0]["train/2/3"].fields == {"text": "longer than it was"}
    assert tables._kept == {}


def test_metadata_parquet_without_images_is_a_corpus(place):
    file = io.BytesIO()
    pq.write_table(pa.table({"image": [b"1"], "file_name": ["a.jpg"]}), file)
    place.create("metadata.parquet", file.getvalue())
    assert len(contents(corpus_of(place.url))[0]) == 1


def test_a_table_grows_with_its_images(photos, tmp_path):
    """New images are made with their rows, and what was taken up before is as it was; a table that changes alone has
    changed."""
    folder, made = tmp_path / "train", recipe(tmp_path / "train", tmp_path / "out", {"caption": {"keep": "labels"}})
    folder.mkdir()

    def write(name: str, text: str) -> None:
        (folder / f"{name}.jpg").write_bytes(photos[name])
        with (folder / "metadata.jsonl").open("a") as table:
            table.write(json.dumps({"file_name": f"{name}.jpg", "text": text}) + "\n")

    def captions() -> dict[str, str]:
        return {key: (text or b"").decode() for (key, _), text in labels_of(tmp_path / "out", "caption").items()}

    write("coffee", "one")
    assert weave(made).samples == 1
    write("chelsea", "two")
    assert make_plan(made).growth.changed == []
    assert weave(made).samples == 1
    assert captions() == {"coffee": "one", "chelsea": "two"}
    both = recipe(folder, tmp_path / "out", {"caption": {"keep": "labels"}, "canny_edge": {"keep": "labels"}})
    weave(both)
    assert len(labels_of(tmp_path / "out", "canny_edge")) == 2
    assert weave(made, take_changes=True).units == 0
    with (folder / "metadata.jsonl").open("a") as table:
        table.write(json.dumps({"file_name": "coffee.jpg", "text": "corrected"}) + "\n")
    assert make_plan(made).growth.changed == ["metadata.jsonl"]
    assert weave(made).units == 0
    assert weave(both, take_changes=True).samples == 2
    assert make_plan(made).growth.changed == []
    assert captions() == {"coffee": "corrected", "chelsea": "two"}
    assert verify(str(tmp_path / "out")).faults == []


def test_a_table_that_comes_later_is_a_change_of_the_images_that_it_tells_of(photos, tmp_path):
    (tmp_path / "train/sub").mkdir(parents=True)
    (tmp_path / "train/sub/coffee.jpg").write_bytes(photos["coffee"])
    made = recipe(tmp_path / "train", tmp_path / "out", {"caption": {"keep": "labels"}})
    weave(made)
    (tmp_path / "train/metadata.csv").write_text("file_name,text\nsub/coffee.jpg,late\n")
    assert make_plan(made).growth.changed == ["metadata.csv"]
    assert weave(made).units == 0
    assert weave(made, take_changes=True).units == 1
    assert list(labels_of(tmp_path / "out", "caption").values()) == [b"late"]
