"""What people's folders hold beside what is taken: each file is taken, or counted and named with the way to take it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from corpus_files import contents, corpus_of, left_out, memory_store, parquet_bytes, tar_bytes
from tokenloom.pipeline.corpus.corpus import CorpusError, UnitLimits
from tokenloom.pipeline.storage.store import Store


def filled(place: Store, *names: str, **contents: bytes) -> Store:
    for name in names:
        place.create(name, b"12345")
    return place


# --- what lies beside shards ------------------------------------------------------------------------------------------


def test_files_of_a_folder_that_are_no_images_by_their_names(place):
    names = ["a.heic", "b.heic", "c.jp2", "d", "e.jpg_large", "f.mov", "sub/g.heic"]
    filled(place, "x.jpg", "x.mov", "y.avif", *names, "notes.txt", ".DS_Store", "sub/z.JPG")
    corpus = corpus_of(place.url)
    assert set(contents(corpus)[0]) == {"x", "y", "sub/z"}
    unread, files, text, *beside = left_out(corpus)
    assert (
        unread
        == "4 images of formats that are not read left out: a.heic, b.heic, c.jp2 and 1 more (convert it to JPEG)"
    )
    assert files.startswith("3 other files left out: d, e.jpg_large, f.mov (what is an image needs the ending")
    assert text.startswith("1 text of no image left out: notes.txt (name it as its image")
    assert beside == []
    assert set(contents(corpus_of(place.url, image="jpg_large"))[0]) == {"e"}


def test_images_of_other_endings_than_the_chosen_one(place):
    filled(place, "a.jpg", "b.png", "c.webp")
    (line,) = left_out(corpus_of(place.url, image="png"))
    assert line.startswith("2 images with other endings left out: a.jpg, c.webp (`image: ENDING`")


@pytest.mark.parametrize(
    ("stray", "formats"), [("backup.tar", ["tar", "folder"]), ("table.parquet", ["parquet", "folder"])]
)
def test_photographs_beside_a_stray_archive_are_not_ignored(place, stray, formats):
    filled(place, *(f"{index}.jpg" for index in range(12)), stray)
    ways = " or ".join(f"`format: {format}`" for format in formats)
    with pytest.raises(CorpusError, match=f"1 of {formats[0]} \\({stray}, ...\\) and 12 of folder.*Write {ways} under"):
        corpus_of(place.url).shards()
    photographs = corpus_of(place.url, format="folder")
    assert len(contents(photographs)[0]) == 12
    (line,) = left_out(photographs)
    assert f"left out: {stray} (`format: {formats[0]}`" in line
    (line,) = corpus_of(place.url, format=formats[0]).find().left_out
    assert line.startswith("12 images left out: 0.jpg, 1.jpg, 10.jpg and 9 more (`format: folder`")


def test_a_compressed_tar_beside_photographs(place):
    filled(place, "a.jpg", "old.tar.gz")
    (line,) = left_out(corpus_of(place.url))
    assert line.startswith("1 compressed tar left out: old.tar.gz (decompress it")


def test_other_files_beside_tars(place):
    place.create("a.tar", tar_bytes([("x.jpg", b"1")]))
    filled(place, "README.md", "a.idx", "b.idx")
    (line,) = left_out(corpus_of(place.url))
    assert line.startswith("3 other files left out: README.md, a.idx and 1 more")
    assert left_out(corpus_of(f"{place.url}/*.tar")) == []


def test_links_to_nothing_and_pipes_are_named_and_never_opened(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"1")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/dead.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "round.jpg").symlink_to(tmp_path / "round.jpg")
    (tmp_path / "sub/.hidden.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked.jpg").symlink_to(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe.txt")
    for url in (tmp_path, f"{tmp_path}/**"):
        corpus = corpus_of(str(url))
        assert list(contents(corpus)[0]) == ["a", "linked"]
        (line,) = left_out(corpus)
        assert line.startswith("3 links to nothing, pipes or devices left out: pipe.txt, round.jpg, sub/dead.jpg (")
    with pytest.raises(CorpusError, match=r"holds nothing that can be read: 1 link to nothing, .*: dead.jpg"):
        corpus_of(str(tmp_path / "sub")).shards()
    with pytest.raises(CorpusError, match=r"none.jpg: nothing is there"):
        corpus_of(str(tmp_path / "none.jpg")).shards()


# --- img2dataset's outputs --------------------------------------------------------------------------------------------

STATS = json.dumps({"count": 2, "successes": 2}).encode()
ROWS = {"key": ["000000000", "000000001"], "url": ["u", "v"], "caption": ["one", "two"], "status": ["success"] * 2}


def test_img2datasets_tars(place):
    sample = [("000000000.jpg", b"1"), ("000000000.txt", b"one"), ("000000000.json", b'{"url": "u"}')]
    place.create("00000.tar", tar_bytes(sample))
    place.create("00000.parquet", parquet_bytes(ROWS))
    place.create("00000_stats.json", STATS)
    corpus = corpus_of(place.url)
    (sample,) = contents(corpus)[0].values()
    assert (sample.key, sample.fields) == ("000000000", {"url": "u", "caption": "one"})
    (line,) = left_out(corpus)
    assert line.startswith("2 tables and counts of img2dataset left out: 00000.parquet, 00000_stats.json")


def test_img2datasets_files(place):
    for folder in ("00000", "00001"):
        place.create(f"{folder}/{folder}0000.jpg", b"1")
        place.create(f"{folder}/{folder}0000.txt", b"one")
        place.create(f"{folder}/{folder}0000.json", b'{"url": "u"}')
        place.create(f"{folder}.parquet", parquet_bytes(ROWS))
        place.create(f"{folder}_stats.json", STATS)
    corpus = corpus_of(place.url)
    samples, refused = contents(corpus)
    assert refused == []
    assert samples["00001/000010000"].fields == {"url": "u", "caption": "one"}
    (line,) = left_out(corpus)
    assert line.startswith("4 tables and counts of img2dataset left out")


def test_img2datasets_parquet(place):
    images = {
        "jpg": [b"1", None],
        "status": ["success", "failed_to_download"],
        "error_message": [None, "HTTP 404"],
    }
    place.create("00000.parquet", parquet_bytes({**ROWS, **images}))
    place.create("00000_stats.json", STATS)
    corpus = corpus_of(place.url)
    samples, refused = contents(corpus)
    assert samples.keys() == {"000000000"}
    assert samples["000000000"].fields["caption"] == "one"
    assert refused == []
    table, note = sorted(left_out(corpus))[::-1]
    assert note == "1 image that was not downloaded left out: 000000001 (failed_to_download, HTTP 404)"
    assert table.startswith("1 table or count of img2dataset left out: 00000_stats.json")
    assert note in left_out(corpus_of(place.url, fields=["caption"]))


@pytest.mark.parametrize("status", [["success", None], ["success", "success"]])
def test_an_image_that_is_said_to_be_there_and_is_not_is_refused(place, status):
    place.create("00000.parquet", parquet_bytes({**ROWS, "jpg": [b"1", None], "status": status}))
    (refused,) = contents(corpus_of(place.url))[1]
    assert (refused.key, refused.error) == ("000000001", "NoImage")


# --- within a shard ---------------------------------------------------------------------------------------------------


def test_names_with_dots_in_a_tar(shared):
    url = str(shared / "cases/tar-names-with-dots")
    samples, _ = contents(corpus_of(url))
    assert list(samples) == ["IMG_2020"]
    (line,) = left_out(corpus_of(url))
    assert line.startswith("4 further images of samples left out: IMG_2020.01.01_12.30.jpg, ")
    assert "`split: last` under `corpus` makes each a sample of its own" in line
    apart = corpus_of(url, split="last")
    assert {sample.key: sample.fields for sample in contents(apart)[0].values()} == {
        f"IMG_2020.01.{day:02d}_12.30": {"caption": f"cap {day}"} for day in range(5)
    }
    assert left_out(apart) == []


def test_what_a_sample_of_a_tar_holds_beside_its_image():
    members = [("README", b"1"), ("a.jpg", b"1"), ("a.seg.png", b"2"), ("a.npy", b"\x93NUMPY\0"), ("a.cls", b"7")]
    members += [("LICENSE", b"1"), ("b.jpg", b"1"), ("b.depth.png", b"2"), ("notes", b"1")]
    corpus = corpus_of(memory_store("a.tar", tar_bytes(members)).url)
    samples, refused = contents(corpus)
    assert ({key: sample.fields for key, sample in samples.items()}, refused) == ({"a": {"cls": "7"}, "b": {}}, [])
    endings, images, texts = left_out(corpus)
    assert endings.startswith("3 files without an ending left out: README, LICENSE, notes")
    assert images.startswith("2 further images of samples left out: a.seg.png, b.depth.png")
    assert texts == "1 file beside an image that is no text left out: a.npy"
    (shard,) = corpus.shards()
    first, second = corpus.read(shard, limits=UnitLimits(samples=1))
    assert [len(unit.rejected) for unit in (first, second)] == [3, 2]
    (again,) = corpus.read(shard, second.unit.start, limits=UnitLimits(samples=1))
    assert again == second


def test_the_texts_of_an_image_by_its_whole_name(place):
    for name, data in (("a.jpg", b"1"), ("a.jpg.txt", b"one"), ("b.jpg", b"1"), ("b.jpg.json", b'{"n": 1}')):
        place.create(f"folder/{name}", data)
    place.create("folder/b.txt", b"nearer")
    place.create("folder/b.jpg.txt", b"farther")
    names = sorted(entry.name for entry in place.list("folder"))
    place.create("tars/a.tar", tar_bytes([(name, place.read(f"folder/{name}")) for name in names]))
    for kind in ("folder", "tars"):
        corpus = corpus_of(f"{place.url}/{kind}")
        fields = {key: sample.fields for key, sample in contents(corpus)[0].items()}
        assert fields == {"a": {"caption": "one"}, "b": {"caption": "nearer", "n": 1}}


@pytest.mark.parametrize("split", ["first", "last"])
def test_hidden_files_of_a_tar_are_none(split):
    members = [("./._a.jpg", b"0"), ("./a.jpg", b"1"), (".thumbs/a.jpg", b"2"), ("._a.txt", b"3"), ("./a.txt", b"one")]
    members += [("x/.cache/b.tar.jpg", b"4"), ("x/b.jpg", b"5"), ("x/.DS_Store", b"6")]
    corpus = corpus_of(memory_store("a.tar", tar_bytes(members)).url, split=split)
    samples, refused = contents(corpus)
    assert ({key: sample.fields for key, sample in samples.items()}, refused) == (
        {"a": {"caption": "one"}, "x/b": {}},
        [],
    )
    (line,) = left_out(corpus)
    assert line.startswith("5 hidden files left out: ._a.jpg, .thumbs/a.jpg, ._a.txt and 2 more (")


def test_what_a_tar_without_a_sample_holds():
    (line,) = left_out(corpus_of(memory_store("a.tar", tar_bytes([("README", b"1"), (".a.jpg", b"2")])).url))[:1]
    assert line.startswith("1 file without an ending left out: README")


@pytest.mark.parametrize("padding", [0, 512, 10_240])
def test_what_follows_the_end_of_a_tar_in_a_concatenated_one(padding):
    tars = [tar_bytes([(f"{index}.jpg", b"1"), (f"{index}.txt", b"one")]) for index in range(3)]
    corpus = corpus_of(memory_store("a.tar", bytes(padding).join(tars) + bytes(padding)).url)
    samples, refused = contents(corpus)
    assert (list(samples), refused) == (["0", "1", "2"], [])
    (shard,) = corpus.shards()
    units = list(corpus.read(shard, limits=UnitLimits(samples=1)))
    for unit in units:
        assert next(corpus.read(shard, unit.unit.start, unit.unit.stop, UnitLimits(samples=1))) == unit


@pytest.mark.parametrize(("count", "size"), [(200, 100), (30, 200_000), (2, 9_000_000)])
def test_tars_put_one_behind_the_other_are_read_about_once(monkeypatch, count, size):
    data = b"".join(tar_bytes([(f"{index}.jpg", bytes([1]) * size)]) for index in range(count))
    corpus = corpus_of(memory_store("a.tar", data).url)
    (shard,), read = corpus.shards(), []
    whole = Store.read_range
    monkeypatch.setattr(Store, "read_range", lambda *given: read.append(len(part := whole(*given))) or part)
    assert sum(unit.unit.count for unit in corpus.read(shard)) == count
    assert sum(read) < 2 * len(data)


def test_what_follows_the_end_of_a_tar_and_is_none():
    corpus = corpus_of(memory_store("a.tar", tar_bytes([("a.jpg", b"1")]) + b"trailing" * 100).url)
    samples, (refused,) = contents(corpus)
    assert list(samples) == ["a"]
    assert refused.error == "BrokenShard"
    assert "no header of a member" in refused.reason


def test_columns_that_are_not_taken():
    columns = {"jpg": [b"1"], "png": [b"2"], "when": [__import__("datetime").date(2020, 1, 1)], "caption": ["x"]}
    corpus = corpus_of(memory_store("a.parquet", parquet_bytes(columns)).url)
    (line,) = left_out(corpus)
    assert line.startswith("2 columns left out: png (binary), when (date32[day])")
    assert left_out(corpus_of(corpus.settings.url, fields=["caption"])) == []


def test_files_beside_images_that_are_no_texts(tmp_path: Path):
    for name, data in (("a.jpg", b"1"), ("a.npy", b"\x93NUMPY\0"), ("a.txt", b"one"), ("b.jpg", b"1")):
        (tmp_path / name).write_bytes(data)
    assert left_out(corpus_of(str(tmp_path))) == ["1 file beside an image that is no text left out: a.npy"]
    assert left_out(corpus_of(str(tmp_path), fields=["caption"])) == []
