"""The corpus: URLs to shards, shards to units, and the same samples from tars, Parquet and folders anywhere."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import uuid
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from corpus_files import contents, corpus_of, parquet_bytes, tar_bytes, units_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenloom.pipeline.corpus import Corpus, CorpusError, CorpusSettings, Sample, Shard, UnitLimits
from tokenloom.pipeline.samples import Item, Rejection, cut
from tokenloom.pipeline.storage import Store
from tokenloom.pipeline.units import Unit


@pytest.fixture(params=["local", "memory", "s3"])
def place(request, tmp_path) -> Store:
    """An empty store of each sort."""
    if request.param == "local":
        return Store(tmp_path / "place")
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4()}")
    return Store(request.getfixturevalue("s3_url"))


# --- from URLs to shards ----------------------------------------------------------------------------------------------


@pytest.fixture
def tars(place) -> Store:
    for name in (
        "train/000.tar",
        "train/001.tar",
        "train/deep/002.tar",
        "val/000.tar",
        "val/notes.txt",
        ".trash/x.tar",
    ):
        place.create(name, tar_bytes([("a.jpg", name.encode())]))
    return place


@pytest.mark.parametrize(
    ("patterns", "paths"),
    [
        (["/train/000.tar"], ["000.tar"]),
        (["/train/{000..001}.tar"], ["000.tar", "001.tar"]),
        (["/{train,val}/000.tar"], ["train/000.tar", "val/000.tar"]),
        (["/train/*.tar"], ["000.tar", "001.tar"]),
        (["/*/000.tar"], ["train/000.tar", "val/000.tar"]),
        (["/*/00[12].tar"], ["train/001.tar"]),
        (["/**/*.tar"], ["train/000.tar", "train/001.tar", "train/deep/002.tar", "val/000.tar"]),
        (["/train"], ["000.tar", "001.tar", "deep/002.tar"]),
        (["/t*"], ["train/000.tar", "train/001.tar", "train/deep/002.tar"]),
        (["/"], ["train/000.tar", "train/001.tar", "train/deep/002.tar", "val/000.tar"]),
        (["/val/000.tar", "/train/*.tar", "/train/000.tar"], ["train/000.tar", "train/001.tar", "val/000.tar"]),
    ],
)
def test_urls_name_shards(tars, patterns, paths):
    urls = [tars.url + pattern for pattern in patterns]
    shards = corpus_of(urls if len(urls) > 1 else urls[0]).shards()
    assert [shard.path for shard in shards] == paths
    assert {shard.format for shard in shards} == {"tar"}
    assert all(shard.size == 10_240 for shard in shards)
    assert len({shard.id for shard in shards}) == len(shards)
    assert all(Store(shard.root).read(shard.path) for shard in shards)


def test_many_files_named_one_by_one(place):
    for index in range(12):
        place.create(f"{index:02d}.tar", tar_bytes([]))
    assert len(corpus_of(f"{place.url}/{{00..11}}.tar").shards()) == 12
    with pytest.raises(CorpusError, match=r"12\.tar: nothing is there, one of 8 missing of 20"):
        corpus_of(f"{place.url}/{{00..19}}.tar").shards()


def test_ids_stay_when_the_corpus_moves(tars):
    ids = [shard.id for shard in corpus_of(tars.url).shards()]
    copy = Store(f"memory://{uuid.uuid4()}")
    for entry in tars.list():
        copy.create(entry.name, tars.read(entry.name))
    assert [shard.id for shard in corpus_of(copy.url).shards()] == ids
    copy.replace("val/000.tar", tar_bytes([("a.jpg", b""), ("b.jpg", bytes(20_000))]))
    changed = [shard.id for shard in corpus_of(copy.url).shards()]
    assert changed[:-1] == ids[:-1]
    assert changed[-1] != ids[-1]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("/tarin/000.tar", r"/tarin/000\.tar: nothing is there\. \S+ exists and holds 3 names, such as train/"),
        ("/train/0000.tar", r"0000\.tar: nothing is there\. \S+/train exists and holds 3 names, such as .*000\.tar"),
        ("/train/*.parquet", r"\*\.parquet: nothing is there\. \S+/train exists and holds 3 names"),
        ("/nowhere/at/all", r"nothing is there\. \S+ exists and holds"),
    ],
)
def test_a_url_for_nothing_shows_what_is_near(tars, pattern, message):
    tars.delete(".trash/x.tar")
    tars.create("other/x", b"")
    with pytest.raises(CorpusError, match=message):
        corpus_of(tars.url + pattern).shards()


def test_formats_are_told_apart(place):
    place.create("mixed/a.tar", tar_bytes([]))
    place.create("mixed/b.parquet", parquet_bytes({"jpg": [b"1"]}))
    with pytest.raises(CorpusError, match="Write `format: tar` or `format: parquet`"):
        corpus_of(f"{place.url}/mixed").shards()
    assert [shard.path for shard in corpus_of(f"{place.url}/mixed", format="tar").shards()] == ["a.tar"]
    assert [shard.path for shard in corpus_of(f"{place.url}/mixed", format="parquet").shards()] == ["b.parquet"]
    with pytest.raises(CorpusError, match=r"holds no images but 2 other files, such as a\.tar"):
        corpus_of(f"{place.url}/mixed", format="folder").shards()
    place.create("odd/shard-0", tar_bytes([("a.jpg", b"1")]))
    assert [shard.format for shard in corpus_of(f"{place.url}/odd/shard-0", format="tar").shards()] == ["tar"]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst"])
def test_compressed_tars_are_refused(place, name):
    place.create(f"{name}", b"")
    with pytest.raises(CorpusError, match=f"{name} is a compressed tar.*Decompress it"):
        corpus_of(f"{place.url}/{name}").shards()


def test_urls_of_several_buckets_are_refused(tars, tmp_path):
    (tmp_path / "b.tar").write_bytes(tar_bytes([]))
    other = Store(f"memory://{uuid.uuid4()}")
    other.create("x.tar", tar_bytes([]))
    if tars.url.startswith("s3"):
        with pytest.raises(CorpusError, match="must share a bucket"):
            corpus_of([f"{tars.url}/val/000.tar", f"{other.url}/x.tar"]).shards()


def test_brackets_and_braces_may_be_in_a_local_path(tmp_path):
    folder = tmp_path / "photos [2020] {a,b}"
    folder.mkdir()
    (folder / "a.tar").write_bytes(tar_bytes([]))
    assert len(corpus_of(str(folder)).shards()) == len(corpus_of(f"{folder}/a.tar").shards()) == 1


def test_settings_refuse_what_they_do_not_know():
    with pytest.raises(ValidationError, match="iamge"):
        CorpusSettings.model_validate({"url": "x", "iamge": "jpg"})
    for url in ("", [], ["a", ""]):
        with pytest.raises(ValidationError, match="name at least one path"):
            CorpusSettings(url=url)
    assert "hush" not in repr(CorpusSettings(url="x", storage_options={"secret": "hush"}))


# --- the rule that cuts units -----------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=60),
    st.builds(UnitLimits, st.integers(1, 7), st.integers(1, 30)),
)
def test_units_partition_the_items_and_restart_at_any_cut(rows, limits):
    items = [
        Item(index * 10, size, Sample(str(index), bytes(size), {}) if good else Rejection(str(index), "why", "Error"))
        for index, (size, good) in enumerate(rows)
    ]
    units = list(cut(items, "shard", 0, None, limits))

    assert [sample.key for unit in units for sample in unit.samples] == [str(i) for i, row in enumerate(rows) if row[1]]
    assert [one.key for unit in units for one in unit.rejected] == [str(i) for i, row in enumerate(rows) if not row[1]]
    assert units[0].unit.start == 0
    assert units[-1].unit.stop is None
    for unit, following in pairwise(units):
        assert unit.unit.stop == following.unit.start
    for unit in units:
        assert unit.unit.count == len(unit.samples)
        sizes = [len(sample.image or b"") for sample in unit.samples]
        assert len(sizes) + len(unit.rejected) <= limits.samples
        assert sum(sizes) <= limits.bytes or len(sizes) == 1
    for number, unit in enumerate(units):
        rest = [item for item in items if item.start >= unit.unit.start]
        assert list(cut(rest, "shard", unit.unit.start, None, limits)) == units[number:]


def test_a_unit_is_as_full_as_it_may_be():
    items = [Item(index, 10, Sample(str(index), bytes(10), {})) for index in range(10)]
    counts = lambda **limits: [unit.unit.count for unit in cut(items, "s", 0, None, UnitLimits(**limits))]  # noqa: E731
    assert counts(samples=4) == [4, 4, 2]
    assert counts(bytes=50) == [5, 5]
    assert counts(bytes=49) == [4, 4, 2]
    assert counts(bytes=1) == [1] * 10
    assert counts(samples=5) == [5, 5]


def test_limits_are_checked():
    for bad in ({"samples": 0}, {"samples": 100_000}, {"bytes": 0}):
        with pytest.raises(ValueError, match="a unit holds"):
            UnitLimits(**bad)


# --- reading ----------------------------------------------------------------------------------------------------------

FORMATS = ("tar", "parquet", "folder")


def write_corpus(store: Store, format: str, sizes: list[int]) -> None:
    """One shard of images of these sizes, with keys 00000, 00001, ... and their own number as field and caption."""
    keys = [f"{index:05d}" for index in range(len(sizes))]
    images = [bytes([index % 251]) * size for index, size in enumerate(sizes)]
    texts = [json.dumps({"number": index}).encode() for index in range(len(sizes))]
    if format == "parquet":
        numbers = pa.array(range(len(sizes)), pa.int64())
        captions = [f"caption {key}" for key in keys]
        columns = {"key": pa.array(keys, pa.string()), "jpg": pa.array(images, pa.binary()), "number": numbers}
        store.replace("shard.parquet", parquet_bytes({**columns, "caption": pa.array(captions, pa.string())}))
        return
    members = []
    for key, image, text in zip(keys, images, texts, strict=True):
        members += [(f"{key}.jpg", image), (f"{key}.json", text), (f"{key}.txt", f"caption {key}".encode())]
    if format == "tar":
        store.replace("shard.tar", tar_bytes(members))
    else:
        for name, data in members:
            store.replace(f"shard/{name}", data)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_the_same_samples(place, format):
    sizes = [100, 0, 3_000, 7, 512, 1_024, 9_000, 1, 2, 3, 4, 5]
    write_corpus(place, format, sizes)
    samples, rejected = contents(corpus_of(place.url if format != "folder" else f"{place.url}/shard"))
    assert rejected == []
    assert list(samples) == [f"{index:05d}" for index in range(len(sizes))]
    for index, size in enumerate(sizes):
        key = f"{index:05d}"
        assert samples[key] == Sample(key, bytes([index]) * size, {"number": index, "caption": f"caption {key}"})


@pytest.mark.parametrize("format", FORMATS)
@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.integers(0, 3_000), max_size=40),
    limits=st.builds(UnitLimits, st.integers(1, 9), st.integers(1, 8_000)),
)
def test_reading_restarts_at_any_unit(format, sizes, limits):
    store = Store(f"memory://{uuid.uuid4()}")
    write_corpus(store, format, [1, *sizes] if format == "folder" else sizes)
    corpus = corpus_of(store.url)
    (shard,) = corpus.shards()
    units = list(corpus.read(shard, limits=limits))
    for number, unit in enumerate(units):
        start, stop = unit.unit.start, unit.unit.stop
        assert list(corpus.read(shard, start, limits=limits)) == units[number:]
        assert list(corpus.read(shard, start, stop, limits)) == [unit]
    middle = len(units) // 2
    until = units[middle].unit.start
    if until:
        assert list(corpus.read(shard, 0, until, limits)) == units[:middle]


class Reads:
    """Counts what is read of each object."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ranges: list[tuple[str, int, int]] = []
        read_range, read = Store.read_range, Store.read

        def counted_range(store, path, start, stop):
            data = read_range(store, path, start, stop)
            self.ranges.append((path, start, start + len(data)))
            return data

        def counted(store, path):
            data = read(store, path)
            self.ranges.append((path, 0, len(data)))
            return data

        monkeypatch.setattr(Store, "read_range", counted_range)
        monkeypatch.setattr(Store, "read", counted)

    def bytes(self) -> int:
        return sum(stop - start for _, start, stop in self.ranges)


def test_a_unit_of_a_tar_reads_its_bytes_alone(place, monkeypatch):
    write_corpus(place, "tar", [100_000] * 100)
    corpus = corpus_of(place.url)
    (shard,) = corpus.shards()
    units = list(corpus.read(shard, limits=UnitLimits(10)))
    reads = Reads(monkeypatch)
    unit = units[4].unit
    assert list(corpus.read(shard, unit.start, unit.stop, UnitLimits(10))) == [units[4]]
    assert unit.stop is not None
    assert reads.bytes() == unit.stop - unit.start
    assert all(unit.start <= start and stop <= unit.stop for _, start, stop in reads.ranges)
    reads.ranges.clear()
    list(corpus.read(shard))
    assert reads.bytes() <= shard.size


def test_a_tar_is_not_read_ahead_of_its_reader(place, monkeypatch):
    write_corpus(place, "tar", [1_000_000] * 40)
    corpus = corpus_of(place.url)
    (shard,) = corpus.shards()
    reads = Reads(monkeypatch)
    next(corpus.read(shard, limits=UnitLimits(2)))
    assert reads.bytes() <= 12_000_000


def test_rows_of_parquet_are_read_without_the_row_groups_around_them(place, monkeypatch):
    images = [bytes([index]) * 100_000 for index in range(100)]
    extra = [bytes([index]) * 50_000 for index in range(100)]
    place.create(
        "a.parquet", parquet_bytes({"jpg": images, "unwanted": extra}, compression="none", use_dictionary=False)
    )
    corpus = corpus_of(place.url)
    (shard,) = corpus.shards()
    units = list(corpus.read(shard, limits=UnitLimits(10)))
    assert len(units) == 10
    reads = Reads(monkeypatch)
    assert list(corpus.read(shard, 40, 50, UnitLimits(10))) == [units[4]]
    assert 1_000_000 <= reads.bytes() <= 1_150_000


def test_a_unit_of_a_folder_reads_its_files_alone(place, monkeypatch):
    write_corpus(place, "folder", [1_000] * 30)
    corpus = corpus_of(place.url)
    (shard,) = corpus.shards()
    reads = Reads(monkeypatch)
    (unit,) = corpus.read(shard, 10, 20, UnitLimits(10))
    assert unit.unit == Unit(shard.id, 10, 20, 10)
    assert {path[6:11] for path, _, _ in reads.ranges} == {f"{index:05d}" for index in range(10, 20)}
    assert len(reads.ranges) == 30


def test_listing_reads_no_object(place, monkeypatch):
    for format in FORMATS:
        write_corpus(place, format, [10] * 5)
    reads = Reads(monkeypatch)
    for format in FORMATS:
        assert corpus_of(place.url, format=format).shards()
    assert reads.ranges == []


def test_a_corpus_and_its_shards_can_be_sent_to_another_process(place):
    write_corpus(place, "tar", [10])
    corpus = corpus_of(place.url)
    (shard,) = corpus.shards()
    sent: Corpus = pickle.loads(pickle.dumps(corpus))
    assert list(sent.read(Shard(**json.loads(json.dumps(shard.__dict__))))) == list(corpus.read(shard))


@pytest.mark.parametrize("format", FORMATS)
def test_a_shard_that_is_gone_is_named(place, format):
    write_corpus(place, format, [10])
    corpus = corpus_of(place.url, format=format)
    (shard,) = corpus.shards()
    for entry in place.list():
        place.delete(entry.name)
    error = (FileNotFoundError, CorpusError) if format == "folder" else FileNotFoundError
    with pytest.raises(error, match=r"/shard"):
        list(corpus.read(shard))


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            r"no column looks like the image: \S+/a\.parquet has the columns text \(string\), blob \(binary\)\. Write",
        ),
        ({"image": "jpeg"}, r"the image column 'jpeg' is not there: .*Correct `image:` under `corpus`"),
        ({"image": "text"}, r"the image column 'text' has no bytes"),
        ({"image": "blob", "key": "kye"}, r"there is no key column 'kye' .*Correct `key:`"),
        ({"image": "blob", "fields": ["text", "captoin"]}, r"no column for the fields captoin.*Correct `fields:`"),
    ],
)
def test_columns_that_are_not_there_stop_the_run_before_any_work(options, message):
    with pytest.raises(CorpusError, match=message):
        read_columns({"text": ["x"], "blob": [b"1"]}, **options)


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


def test_a_folder_that_changed_after_its_listing_is_refused(place):
    place.create("a.jpg", b"1")
    corpus = corpus_of(place.url)
    (shard,) = corpus.shards()
    place.create("b.jpg", b"2")
    with pytest.raises(CorpusError, match="changed while the run was under way"):
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
