"""The corpus: URLs to shards, shards to units, and the same samples from tars, Parquet and folders anywhere."""

from __future__ import annotations

import json
import pickle
import uuid
from itertools import pairwise

import pytest
from corpus_files import contents, corpus_of, parquet_bytes, put_all, tar_bytes, write_corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenloom.pipeline.corpus.corpus import Corpus, CorpusError, CorpusSettings, Sample, Shard, UnitLimits
from tokenloom.pipeline.corpus.samples import Item, Rejection, cut
from tokenloom.pipeline.corpus.units import Unit
from tokenloom.pipeline.storage.objects import ObjectFiles
from tokenloom.pipeline.storage.store import Store

# --- from URLs to shards ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tars(kept_place) -> Store:
    names = ("train/000.tar", "train/001.tar", "train/deep/002.tar", "val/000.tar", "val/notes.txt", ".trash/x.tar")
    put_all(kept_place, {name: tar_bytes([("a.jpg", name.encode())]) for name in names})
    return kept_place


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
        (["/val/000.tar", "/train/*.tar", "/train/000.tar"], ["train/000.tar", "train/001.tar", "000.tar"]),
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
    put_all(place, {f"{index:02d}.tar": tar_bytes([]) for index in range(12)})
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
        ("/tarin/000.tar", r"/tarin/000\.tar: nothing is there\. \S+ exists and holds 2 names, such as train/"),
        ("/train/0000.tar", r"0000\.tar: nothing is there\. \S+/train exists and holds 3 names, such as .*000\.tar"),
        ("/train/*.parquet", r"\*\.parquet: nothing is there\. \S+/train exists and holds 3 names"),
        ("/nowhere/at/all", r"nothing is there\. \S+ exists and holds"),
    ],
)
def test_a_url_for_nothing_shows_what_is_near(tars, pattern, message):
    with pytest.raises(CorpusError, match=message):
        corpus_of(tars.url + pattern).shards()


def test_a_folder_of_many_names_is_not_listed_for_one(monkeypatch):
    """Here one without an end."""
    place = Store(f"memory://{uuid.uuid4()}")
    place.create("a/x[1].png", b"1")
    pages = []

    def endless(files: ObjectFiles, prefix: str, token: str) -> tuple[list[str], str]:
        pages.append(token)
        first = int(token or 0)
        return ([], "") if prefix else ([f"{first + index:06}.png" for index in range(1000)], str(first + 1000))

    monkeypatch.setattr(ObjectFiles, "children_page", endless)
    assert len(corpus_of(f"{place.url}/a/x[1].png").shards()) == 1
    assert not pages
    with pytest.raises(CorpusError, match=r"a exists and holds at least 5,000 names, such as 000"):
        corpus_of(f"{place.url}/a/00000[x].png").shards()


def test_formats_are_told_apart(place):
    place.create("mixed/a.tar", tar_bytes([]))
    place.create("mixed/b.parquet", parquet_bytes({"jpg": [b"1"]}))
    with pytest.raises(CorpusError, match=r"Write `format: tar` or `format: parquet` under `corpus`"):
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
        with pytest.raises(ValidationError, match="name a folder or URL"):
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
    sized = {str(index): size > 0 for index, (size, _) in enumerate(rows)}

    assert [sample.key for unit in units for sample in unit.samples] == [str(i) for i, row in enumerate(rows) if row[1]]
    assert [one.key for unit in units for one in unit.rejected] == [str(i) for i, row in enumerate(rows) if not row[1]]
    assert units[0].unit.start == 0
    assert units[-1].unit.stop is None
    for unit, following in pairwise(units):
        assert unit.unit.stop == following.unit.start
    for unit in units:
        assert unit.unit.count == len(unit.samples)
        sizes = [len(sample.image or b"") for sample in unit.samples]
        assert len(sizes) + sum(sized[one.key] for one in unit.rejected) <= limits.samples
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


def test_what_is_not_there_does_not_fill_a_unit():
    """Blank lines and rows without an image; their bytes do, and what is refused of no bytes by its lines."""
    blank = [Item(index, 1, None) for index in range(1000)]
    null = [Item(index, 0, Rejection(str(index), "is null", "NoImage")) for index in range(1000)]
    there = [Item(1000 + index, 10, Sample(str(index), bytes(10), {})) for index in range(10)]
    cuts = lambda items, **limits: [u.unit.start for u in cut(items, "s", 0, None, UnitLimits(**limits))]  # noqa: E731
    assert cuts(blank + there, samples=4) == [0, 1004, 1008]
    assert cuts(blank, samples=4, bytes=300) == [0, 300, 600, 900]
    assert cuts(null, samples=4) == [0, 256, 512, 768]
    assert cuts([*there, Item(1010, 0, Rejection("", "broken", "BrokenShard"))], samples=10) == [0, 1010]
    for unit in cut(blank[:300] + there, "s", 0, None, UnitLimits(samples=4)):
        rest = [item for item in (*blank[:300], *there) if item.start >= unit.unit.start]
        assert next(cut(rest, "s", unit.unit.start, None, UnitLimits(samples=4))) == unit


def test_limits_are_checked():
    for bad in ({"samples": 0}, {"samples": 100_000}, {"bytes": 0}):
        with pytest.raises(ValueError, match="a unit holds"):
            UnitLimits(**bad)


# --- reading ----------------------------------------------------------------------------------------------------------

FORMATS = ("tar", "parquet", "folder")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_the_same_samples(place, format):
    sizes = [100, 0, 3_000, 7, 512, 1_024, 9_000, 1]
    write_corpus(place, format, sizes)
    samples, rejected = contents(corpus_of(place.url if format != "folder" else f"{place.url}/shard"))
    assert rejected == []
    assert list(samples) == [f"{index:05d}" for index in range(len(sizes))]
    for index, size in enumerate(sizes):
        key = f"{index:05d}"
        assert samples[key] == Sample(key, bytes([index]) * size, {"number": index, "caption": f"caption {key}"})


@pytest.mark.slow
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
    write_corpus(place, "folder", [1_000] * 12)
    corpus = corpus_of(place.url)
    (shard,) = corpus.shards()
    reads = Reads(monkeypatch)
    (unit,) = corpus.read(shard, 4, 8, UnitLimits(4))
    assert unit.unit == Unit(shard.id, 4, 8, 4)
    assert {path[6:11] for path, _, _ in reads.ranges} == {f"{index:05d}" for index in range(4, 8)}
    assert len(reads.ranges) == 12


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
