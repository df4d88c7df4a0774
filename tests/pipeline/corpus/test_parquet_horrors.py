"""Parquet files as they shouldn't be: bad rows, broken row groups, files that are something else."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_files import contents, corpus_of, memory_store, parquet_bytes, units_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.pipeline.corpus.corpus import CorpusError, UnitLimits


def test_bad_rows_cost_themselves():
    columns = {
        "key": ["a", None, "../x", "a", "b", "c", "/d", "e\0"],
        "jpg": [b"1", b"2", b"3", b"4", None, b"6", b"7", b"8"],
    }
    samples, rejected = contents(corpus_of(memory_store("a.parquet", parquet_bytes(columns)).url))
    assert list(samples) == ["a", "c"]
    assert [(one.key, one.error) for one in rejected] == [
        ("", "UnsafeKey"), ("../x", "UnsafeKey"), ("a", "DuplicateKey"), ("b", "NoImage"), ("/d", "UnsafeKey"),
        ("e\0", "UnsafeKey"),
    ]  # fmt: skip
    assert "null in row 4" in rejected[3].reason


def test_null_structs_and_structs_of_null():
    images = pa.array([None, {"bytes": None, "path": "x.jpg"}, {"bytes": b"3", "path": None}])
    samples, rejected = contents(corpus_of(memory_store("a.parquet", parquet_bytes({"image": images})).url))
    assert [sample.image for sample in samples.values()] == [b"3"]
    assert [(one.key, one.error) for one in rejected] == [("a/000000000", "NoImage"), ("a/000000001", "NoImage")]


def test_a_text_that_is_not_utf8():
    bad = pa.Array.from_buffers(pa.string(), 2, [None, *pa.array([b"ok", b"\xff\xfe"], pa.binary()).buffers()[1:]])
    store = memory_store("a.parquet", parquet_bytes({"jpg": [b"1", b"2"], "caption": bad}))
    samples, rejected = contents(corpus_of(store.url))
    assert {key: sample.fields for key, sample in samples.items()} == {"a/000000000": {"caption": "ok"}}
    assert [(one.key, one.error) for one in rejected] == [("a/000000001", "NotText")]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all", parquet_bytes({"jpg": [b"1"]})[:-9]])
def test_files_that_are_no_parquet(data):
    store = memory_store("b.parquet", data)
    store.create("a.parquet", parquet_bytes({"jpg": [b"1"]}))
    good, bad = units_of(corpus_of(store.url))
    assert [sample.key for sample in good.samples] == ["a/000000000"]
    assert (bad.unit.start, bad.unit.stop, bad.unit.count) == (0, None, 0)
    assert [(one.key, one.error) for one in bad.rejected] == [("", "BrokenShard")]
    assert bad.rejected[0].reason.startswith("b.parquet is broken, or no Parquet file")


def test_one_odd_shard_among_many_is_rejected():
    store = memory_store("a.parquet", parquet_bytes({"jpg": [b"1"]}))
    store.create("b.parquet", parquet_bytes({"photo": [b"1"]}))
    good, odd = units_of(corpus_of(store.url, image="jpg"))
    assert good.unit.count == 1
    assert [(one.key, one.error) for one in odd.rejected] == [("", "NoColumn")]
    assert "the image column 'jpg' is not there" in odd.rejected[0].reason


def test_a_broken_first_shard_does_not_stop_the_check():
    store = memory_store("a.parquet", b"junk")
    store.create("b.parquet", parquet_bytes({"jpg": [b"1"]}))
    assert [unit.unit.count for unit in units_of(corpus_of(store.url))] == [0, 1]


def test_an_empty_parquet_file_is_one_empty_unit():
    store = memory_store("a.parquet", parquet_bytes({"jpg": pa.array([], pa.binary())}))
    (unit,) = units_of(corpus_of(store.url))
    assert (unit.unit.count, unit.unit.stop, unit.rejected) == (0, None, [])


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.integers(4, 60_000), st.binary(min_size=1, max_size=40), st.integers(1, 9))
def test_reading_restarts_at_any_unit_of_a_broken_parquet_file(at, noise, limit):
    images = [bytes([index]) * 1_000 for index in range(60)]
    data = bytearray(parquet_bytes({"jpg": images}, 20, use_dictionary=False, compression="snappy"))
    data[at : at + len(noise)] = noise
    corpus = corpus_of(memory_store("a.parquet", bytes(data)).url)
    (shard,) = corpus.shards()
    units = list(corpus.read(shard, limits=UnitLimits(limit)))
    for number, unit in enumerate(units):
        assert list(corpus.read(shard, unit.unit.start, limits=UnitLimits(limit))) == units[number:]


def test_a_broken_row_group_costs_itself():
    images = [bytes([index]) * 5_000 for index in range(60)]
    data = bytearray(parquet_bytes({"jpg": images}, 20, use_dictionary=False, compression="none"))
    at = data.index(b"\x14" * 5_000)  # the first image of the second row group
    data[at - 60 : at - 10] = b"\xff" * 50
    samples, rejected = contents(corpus_of(memory_store("a.parquet", bytes(data)).url))
    kept = [int(key.rsplit("/", 1)[-1]) for key in samples]
    assert kept == [*range(20), *range(40, 60)]
    assert [(one.key, one.error) for one in rejected] == [("", "BrokenShard")]
    assert "a.parquet: row group 1 is broken, and its rows from 20 on can't be read" in rejected[0].reason


@pytest.mark.parametrize("twice", ["image", "caption", "key", "status"])
def test_columns_of_one_name_cost_their_file(twice):
    store = memory_store("a.parquet", parquet_bytes({"image": [b"1"]}))
    columns = {"image": [b"1"], "caption": ["x"], "key": ["k"], "status": ["success"]}
    names = [*columns, twice]
    arrays = [pa.array(columns[name]) for name in names]
    file = io.BytesIO()
    pq.write_table(pa.table(arrays, names), file)
    store.create("b.parquet", file.getvalue())
    samples, (refused,) = contents(corpus_of(store.url))
    assert (list(samples), refused.key, refused.error) == (["a/000000000"], "", "NoColumn")
    assert f"several columns are named {twice!r}: b.parquet has the columns" in refused.reason
    alone = corpus_of(f"{store.url}/b.parquet")
    with pytest.raises(CorpusError, match=f"several columns are named {twice!r}"):
        alone.check(alone.shards())
    if twice == "caption":
        assert list(contents(corpus_of(store.url, fields=[]))[0]) == ["a/000000000", "k"]


def test_a_column_whose_name_is_not_utf8_costs_its_file():
    data = parquet_bytes({"image": [b"1"], "caption": ["x"]}, store_schema=False)
    store = memory_store("a.parquet", data.replace(b"caption", b"capt\xff\xfen"))
    store.create("b.parquet", parquet_bytes({"image": [b"1"]}))
    samples, (refused,) = contents(corpus_of(store.url))
    assert (list(samples), refused.key, refused.error) == (["b/000000000"], "", "BrokenShard")
    assert "a.parquet is broken, or no Parquet file: the name of a column is not UTF-8" in refused.reason


@pytest.mark.parametrize("in_struct", [False, True])
def test_images_of_which_each_is_written_once(in_struct):
    images = pa.array([b"1", b"2", b"1"]).dictionary_encode()
    column = pa.StructArray.from_arrays([images], ["bytes"]) if in_struct else images
    corpus = corpus_of(memory_store("a.parquet", parquet_bytes({"image": column, "id": [1, 2, 3]})).url)
    samples, refused = contents(corpus)
    assert ({key: sample.image for key, sample in samples.items()}, refused) == ({"1": b"1", "2": b"2", "3": b"1"}, [])
