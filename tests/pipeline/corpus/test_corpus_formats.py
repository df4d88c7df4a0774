"""What is particular to tars, to Parquet and to folders of images: names, texts, columns."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import contents, corpus_of, parquet_bytes, tar_bytes, units_of, write_corpus
from tokenloom.pipeline.corpus.corpus import CorpusError, Rejection, Sample, UnitLimits
from tokenloom.pipeline.storage import windows
from tokenloom.pipeline.storage.store import Store

# --- tars -------------------------------------------------------------------------------------------------------------


def read_tar_members(*members: tuple[str, bytes], **options) -> tuple[dict[str, Sample], list[Rejection]]:
    store = Store(f"memory://{uuid.uuid4()}")
    store.create("a.tar", tar_bytes(members))
    return contents(corpus_of(store.url, **options))


def test_names_in_a_tar_follow_webdatasets_rule():
    names = ["./a.jpg", "dir.v1/sub/b.c.jpg", "ünï🎈.jpg", "README", ".hidden.jpg", "x" * 300 + ".jpg"]
    samples, rejected = read_tar_members(*((name, b"1") for name in names))
    assert list(samples) == ["a", "dir.v1/sub/b", "ünï🎈", "x" * 300]
    assert rejected == []


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_tar_formats_are_read(format, tmp_path):
    names = ["a/" * 40 + "b.jpg", *(["é" * 200 + ".jpg"] if format != tarfile.USTAR_FORMAT else [])]
    (tmp_path / "a.tar").write_bytes(tar_bytes([(name, b"1") for name in names], format))
    samples, rejected = contents(corpus_of(str(tmp_path)))
    assert list(samples) == [name[:-4] for name in names]
    assert rejected == []


def test_a_tar_gives_what_webdataset_gives(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    members = [(f"{folder}/{index}.{extension}", bytes([index]) * index * 100)
               for folder in "ab" for index in range(20) for extension in ("jpg", "seg.png", "cls")]  # fmt: skip
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    expected = {
        sample["__key__"]: sample["jpg"] for sample in webdataset.WebDataset(f"{tmp_path}/a.tar", shardshuffle=False)
    }
    samples, _ = contents(corpus_of(str(tmp_path)))
    assert {key: sample.image for key, sample in samples.items()} == expected


def test_which_member_is_the_image():
    members = [("a.seg.png", b"map"), ("a.jpg", b"photo"), ("a.png", b"other"), ("b.input.jpg", b"dotted")]
    samples, _ = read_tar_members(*members)
    assert {key: sample.image for key, sample in samples.items()} == {"a": b"photo", "b": b"dotted"}
    samples, rejected = read_tar_members(*members, image="seg.png")
    assert {key: sample.image for key, sample in samples.items()} == {"a": b"map"}
    assert [(one.key, one.error) for one in rejected] == [("b", "NoImage")]
    samples, _ = read_tar_members(("a.BIN", b"x"), ("a.jpg", b"y"), image=".bin")
    assert samples["a"].image == b"x"


def test_texts_beside_an_image_become_fields():
    samples, rejected = read_tar_members(
        ("a.jpg", b"1"),
        ("a.json", json.dumps({"caption": "from json", "url": "http://x", "nested": {"list": [1, None]}}).encode()),
        ("a.txt", "\ufeffUn café & 猫.\n".encode()),
        ("a.cls", b"7\n"),
        ("a.npy", b"\x93NUMPY\x01\x00"),
        ("a.bin", b"text\x00"),
        ("b.txt", b"before its image"),
        ("b.jpg", b"2"),
    )
    assert rejected == []
    assert samples["a"].fields == {
        "caption": "Un café & 猫.", "url": "http://x", "nested": {"list": [1, None]}, "cls": "7",
    }  # fmt: skip
    assert samples["b"].fields == {"caption": "before its image"}


def test_only_the_wanted_fields_are_kept_and_the_units_stay():
    store = Store(f"memory://{uuid.uuid4()}")
    write_corpus(store, "tar", [500] * 20)
    limits = UnitLimits(bytes=3_000)
    everything = units_of(corpus_of(store.url), limits)
    for wanted in ([], ["number"], ["caption"], ["nothing"]):
        units = units_of(corpus_of(store.url, fields=wanted), limits)
        assert [unit.unit for unit in units] == [unit.unit for unit in everything]
        assert all(set(sample.fields) == set(wanted) - {"nothing"} for unit in units for sample in unit.samples)


# --- Parquet ----------------------------------------------------------------------------------------------------------


def read_columns(columns: dict, **options) -> tuple[dict[str, Sample], list[Rejection]]:
    store = Store(f"memory://{uuid.uuid4()}")
    store.create("dir/a.parquet", parquet_bytes(columns))
    return contents(corpus_of(store.url, **options))


def test_hugging_faces_image_column():
    images = [{"bytes": bytes([index]), "path": f"{index}.jpg"} for index in range(30)]
    samples, _ = read_columns({"image": images, "label": list(range(30))})
    assert list(samples)[:2] == ["dir/a/000000000", "dir/a/000000001"]
    assert samples["dir/a/000000017"] == Sample("dir/a/000000017", b"\x11", {"label": 17})


def test_columns_that_json_has_ride_along():
    samples, _ = read_columns(
        {
            "id": [3],
            "photo": pa.array([b"1"], pa.large_binary()),
            "caption": ["ü"],
            "size": pa.array([{"height": 2, "scores": [1.5, float("nan")]}]),
            "flag": [True],
            "category": pa.array(["x"]).dictionary_encode(),
            "thumbnail": [b"2"],
            "date": pa.array([0], pa.timestamp("s")),
        },
        image="photo",
    )
    assert samples == {
        "3": Sample(
            "3",
            b"1",
            {"caption": "ü", "size": {"height": 2, "scores": [1.5, None]}, "flag": True, "category": "x"},
        )
    }


def test_chosen_key_and_fields():
    columns = {"jpg": [b"1", b"2"], "id": [1, 2], "name": ["x", "y"], "caption": ["c", "d"]}
    samples, _ = read_columns(columns, key="name", fields=["caption"])
    assert samples == {"x": Sample("x", b"1", {"caption": "c"}), "y": Sample("y", b"2", {"caption": "d"})}


@pytest.mark.parametrize("window", [2**22, 2**12])
def test_columns_that_lie_together_are_read_together(window, monkeypatch):
    """Each is a stretch of its own in each row group: here 240 of some 500 bytes."""
    place, asked, whole = Store(f"memory://{uuid.uuid4()}"), [], Store.read_range
    columns = {"image": [bytes([row]) * 500 for row in range(200)], "key": [f"{row:03}" for row in range(200)]}
    table = pa.table({**columns, **{f"field{at}": [f"{at} {row}" for row in range(200)] for at in range(10)}})
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=10, compression="NONE", use_dictionary=False)
    place.create("a.parquet", file.getvalue())
    corpus = corpus_of(f"{place.url}/a.parquet")
    (shard,) = corpus.shards()
    monkeypatch.setattr(windows, "WINDOW", window)
    monkeypatch.setattr(Store, "read_range", lambda self, *where: asked.append(where) or whole(self, *where))
    samples = [sample for unit in corpus.read(shard) for sample in unit.samples]
    assert [(sample.image, sample.key) for sample in samples] == list(zip(*columns.values(), strict=True))
    assert len(asked) <= 2 + 2 * shard.size / window
    assert sum(stop - start for _, start, stop in asked) < 1.5 * shard.size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            r"no column looks like the image: \S+/a\.parquet has the columns text \(string\), blob \(binary\)\. Write",
        ),
        ({"image": "jpeg"}, r"the image column 'jpeg' is not there: .*Write `image: COLUMN` under `corpus`"),
        ({"image": "text"}, r"the image column 'text' has no bytes"),
        ({"image": "blob", "key": "kye"}, r"there is no key column 'kye' .*Correct `key:`"),
        ({"image": "blob", "fields": ["text", "captoin"]}, r"no column for the fields captoin.*Correct `fields:`"),
    ],
)
def test_columns_that_are_not_there_stop_the_run_before_any_work(options, message):
    with pytest.raises(CorpusError, match=message):
        read_columns({"text": ["x"], "blob": [b"1"]}, **options)


@pytest.mark.parametrize("options", [{}, {"image": "image"}])
def test_a_column_of_paths_alone_is_told_apart(options):
    """As `datasets` writes images that it has only the names of."""
    with pytest.raises(CorpusError, match="There are paths without bytes: write the images themselves"):
        read_columns({"image": [{"bytes": None, "path": "a.jpg"}]}, **options)
    rows = [{"bytes": None, "path": "a.jpg"}, {"bytes": b"1", "path": "b.jpg"}]
    assert [one.reason for one in read_columns({"image": rows})[1]] == ["the column 'image' has no bytes in row 0"]


# --- folders ----------------------------------------------------------------------------------------------------------


def test_every_folder_with_images_is_a_shard(place):
    for name in (
        "top.JPG",
        "a/1.png",
        "a/1.txt",
        "a/b/2.jpeg",
        "a/notes.md",
        "empty/readme.txt",
        ".git/x.jpg",
        "a/._1.png",
    ):
        place.create(name, b"12345")
    corpus = corpus_of(place.url)
    assert [(shard.path, shard.size) for shard in corpus.shards()] == [("", 5), ("a", 10), ("a/b", 5)]
    samples, _ = contents(corpus)
    assert {key: sample.fields for key, sample in samples.items()} == {
        "top": {}, "a/1": {"caption": "12345"}, "a/b/2": {},
    }  # fmt: skip


def test_an_added_file_makes_another_shard_and_a_stray_one_does_not(place):
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg"):
        place.create(name, b"12345")
    corpus = corpus_of(place.url)
    ids = [shard.id for shard in corpus.shards()]
    place.create("a/Thumbs.db", b"x")
    assert [shard.id for shard in corpus.shards()] == ids
    place.create("a/1.txt", b"")
    changed = corpus.shards()
    assert [shard.id == old for shard, old in zip(changed, ids, strict=True)] == [False, True]


@pytest.mark.parametrize("change", ["another size", "deleted"])
@pytest.mark.parametrize("name", ["a.jpg", "a.txt"])
def test_a_picture_that_changed_after_its_listing_ends_the_run(place, change, name):
    place.create("a.jpg", b"1")
    place.create("a.txt", b"one")
    corpus = corpus_of(place.url)
    (shard,) = corpus.shards()
    place.create("b.jpg", b"2")
    assert [unit.unit.count for unit in corpus.read(shard)] == [1]
    place.delete(name)
    if change == "another size":
        place.create(name, b"twelve")
    with pytest.raises(CorpusError, match=f"{name} has changed, or is gone, since it was listed: run the recipe"):
        list(corpus.read(shard))


@pytest.mark.parametrize("name", ["a.tar", "a.parquet"])
def test_a_file_that_changed_after_its_listing_ends_the_run(place, name):
    place.create(name, tar_bytes([("a.jpg", b"1")]))
    corpus = corpus_of(place.url)
    (shard,) = corpus.shards()
    place.replace(name, bytes(20_000))
    with pytest.raises(CorpusError, match=f"{name} has changed"):
        list(corpus.read(shard))


def test_dots_in_names_of_a_folder_stay_in_the_key(tmp_path):
    for name in ("v1.2/cat.final.jpg", "v1.2/cat.final.json"):
        path = Path(tmp_path, name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b'{"a": 1}')
    samples, _ = contents(corpus_of(str(tmp_path)))
    assert {key: sample.fields for key, sample in samples.items()} == {"v1.2/cat.final": {"a": 1}}


def test_the_fixture_corpora_hold_the_same(corpus_folder, corpus_tar):
    from_folder, _ = contents(corpus_of(str(corpus_folder)))
    from_tar, _ = contents(corpus_of(str(corpus_tar)))
    assert from_folder == from_tar
    assert len(from_tar) == 6
    assert all(io.BytesIO(sample.image or b"").read(2) == b"\xff\xd8" for sample in from_tar.values())
