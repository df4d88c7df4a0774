"""Corpora of texts: JSON lines, Parquet and plain text, as they are and compressed, on every sort of store."""

from __future__ import annotations

import codecs
import gzip
import json
import tracemalloc

import pyarrow as pa
import pytest
from corpus_files import contents, corpus_of, left_out, memory_store, parquet_bytes, units_of
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenloom.pipeline.corpus import lines
from tokenloom.pipeline.corpus.corpus import CorpusError, UnitLimits
from tokenloom.pipeline.corpus.samples import LARGEST_TEXT

CONTROLS = ["[EOS]", "[S_1]", "v0=12", "[PAD] [UNK] [SOS]", "v3=999v0=0"]


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


PACKED = {"": bytes, ".gz": gzip.compress, ".zst": zstd}


def as_lines(rows) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def corpus_with(data: bytes, name: str = "docs.jsonl", **settings):
    return corpus_of(f"{memory_store(name, data).address}/{name}", **{"text": "text", **settings})


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("name", ["en.00000-of-00002.json", "part.jsonl", "part.ndjson"])
def test_json_lines_are_texts(place, name, ending):
    rows = [{"text": f"the text {n}\nin two lines", "url": f"u{n}", "score": float("nan")} for n in range(5)]
    place.create(f"c4/{name}{ending}", PACKED[ending](as_lines(rows)))
    samples, refused = contents(corpus_of(f"{place.address}/c4/*{name[-5:]}{ending}", text="text"))
    assert not refused
    assert [sample.fields for sample in samples.values()] == [{**row, "score": None} for row in rows]
    assert all(sample.image is None for sample in samples.values())
    start = len(as_lines(rows[:1]))
    assert list(samples)[:2] == [f"{name}{ending}/{0:012d}", f"{name}{ending}/{start:012d}"]


@pytest.mark.parametrize("ending", PACKED)
def test_a_line_of_plain_text_is_a_text_and_blank_ones_are_none(place, ending):
    place.create(f"wiki.txt{ending}", PACKED[ending](b"= Title =\n \n\n\tfirst  paragraph \r\nsecond"))
    corpus = corpus_of(f"{place.address}/wiki.txt{ending}", text="text")
    samples, refused = contents(corpus)
    assert [sample.fields["text"] for sample in samples.values()] == ["= Title =", "\tfirst  paragraph ", "second"]
    assert not refused
    (line,) = left_out(corpus)
    assert line.startswith(f"2 blank lines left out: wiki.txt{ending} at byte 10")


def test_rows_of_parquet_are_texts(place):
    table = {"id": ["a", "b", "c"], "body": ["one", None, "three"], "text": ["-"] * 3, "when": pa.array([1, 2, 3])}
    place.create("part.parquet", parquet_bytes(table, rows_per_group=2))
    samples, refused = contents(corpus_of(place.address, text="body"))
    assert {key: sample.fields for key, sample in samples.items()} == {
        f"part.parquet/{0:012d}": {"id": "a", "text": "one", "when": 1},
        f"part.parquet/{2:012d}": {"id": "c", "text": "three", "when": 3},
    }
    assert [(one.key, one.error) for one in refused] == [(f"part.parquet/{1:012d}", "NoText")]
    named, _ = contents(corpus_of(place.address, text="body", key="id", fields=["when"]))
    assert {key: sample.fields for key, sample in named.items()} == {
        "a": {"when": 1, "text": "one"},
        "c": {"when": 3, "text": "three"},
    }


def test_units_of_texts_are_cut_alike_whatever_is_taken_beside_them(place):
    """Else a dataset made with other `fields` has units that overlap these. What lies beside may be no UTF-8."""
    broken = pa.Array.from_buffers(pa.string(), 20, pa.array([b"\xff"] * 20, pa.binary()).buffers())
    place.create("a.parquet", parquet_bytes({"text": [f"text {n}" for n in range(20)], "beside": broken}))
    read = [units_of(corpus_of(place.address, text="text", fields=fields), UnitLimits(4)) for fields in (None, [])]
    cuts = [[(unit.unit.start, unit.unit.stop) for unit in units] for units in read]
    assert cuts[0] == cuts[1] == [(0, 4), (4, 8), (8, 12), (12, 16), (16, None)]
    assert [one.error for unit in read[0] for one in unit.rejected] == ["NotText"] * 20


@pytest.mark.parametrize("ending", PACKED)
def test_one_bad_line_costs_that_line(ending, monkeypatch):
    monkeypatch.setattr(lines, "LARGEST_TEXT", 1000)
    good = as_lines([{"text": "good", "id": 7}])
    bad = {
        b'{"text": null}': "NoText",
        b'{"body": "x"}': "NoText",
        b'{"text": 5}': "NotText",
        b'{"text": ""}': "EmptyText",
        b'{"text": " \\n "}': "EmptyText",
        b'{"text": "caf\xe9"}': "NotText",
        b'{"text": "cut': "InvalidJSON",
        b'["text"]': "InvalidJSON",
        b"[" * 900: "InvalidJSON",
        b'{"text": "' + b"x" * 5000 + b'"}': "TooLarge",
    }
    data = codecs.BOM_UTF8 + good + b"".join(line + b"\r\n" + good for line in bad)
    samples, refused = contents(corpus_with(PACKED[ending](data), f"docs.jsonl{ending}"))
    assert [sample.fields["text"] for sample in samples.values()] == ["good"] * (1 + len(bad))
    assert [one.error for one in refused] == list(bad.values())
    for line, one in zip(bad, refused, strict=True):
        at = int(one.key.rpartition("/")[2])
        assert data[at : at + len(line)] == line, "the key says where the line begins"
        assert len(one.reason) < 300


def test_a_line_of_50_mb_is_never_in_memory():
    line = b'{"text": "' + b"x" * 50_000_000 + b'"}\n'
    corpus = corpus_with(gzip.compress(line + as_lines([{"text": "next"}]), 1), "docs.jsonl.gz", format="jsonl")
    tracemalloc.start()
    samples, refused = contents(corpus)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * LARGEST_TEXT
    assert [sample.fields["text"] for sample in samples.values()] == ["next"]
    assert [(one.error, one.reason) for one in refused] == [
        ("TooLarge", f"the line has {len(line):,} bytes, more than {LARGEST_TEXT:,}")
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_encoding_costs_the_file_and_says_how_to_convert_it(encoding):
    corpus = corpus_with('{"text": "x"}\n'.encode(encoding), format="text")
    samples, (refused,) = contents(corpus)
    assert not samples
    assert refused.is_of_shard
    assert f"docs.jsonl is {encoding.upper()}, not UTF-8: convert it" in refused.reason


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_what_can_be_read_of_a_damaged_file_is_kept_wherever_reading_begins(ending, damage):
    rows = [{"text": f"{n} " + json.dumps(list(range(n, n + 500)))} for n in range(300)]
    packed = PACKED[ending](as_lines(rows))
    middle = len(packed) * 3 // 4
    packed = packed[:middle] if damage == "cut" else packed[:middle] + b"\xff" * 99 + packed[middle + 99 :]
    corpus = corpus_with(packed, f"docs.jsonl{ending}")
    limits = UnitLimits(samples=10)
    units = units_of(corpus, limits)
    count = sum(len(unit.samples) for unit in units)
    assert units[-1].rejected[-1].error == "BrokenShard"
    assert ending == ".zst" or damage == "flipped" or 150 < count < 300  # pyarrow's Codec writes one block of Zstandard
    (shard,) = corpus.shards()
    for index in range(0, len(units), 7):
        assert list(corpus.read(shard, units[index].unit.start, limits=limits)) == units[index:]


@pytest.mark.parametrize("ending", PACKED)
def test_a_unit_is_read_alone_as_with_all_before_it(ending):
    rows = [{"text": "x" * (n % 17 + 1), "n": n} for n in range(1000)]
    corpus = corpus_with(PACKED[ending](as_lines(rows)), f"docs.jsonl{ending}")
    limits = UnitLimits(samples=64)
    units = units_of(corpus, limits)
    (shard,) = corpus.shards()
    for unit in units:
        (alone,) = corpus.read(shard, unit.unit.start, unit.unit.stop, limits)
        assert alone == unit
        read_again = unit.unit.start > 0 and ending != ""
        assert (alone.again > 0) == read_again, "what is read again is counted"
    assert not any(unit.again for unit in units)


def test_members_put_one_behind_the_other_are_read_to_the_end():
    parts = [gzip.compress(as_lines([{"text": f"part {n}"}])) for n in range(3)]
    samples, refused = contents(corpus_with(b"".join(parts), "docs.jsonl.gz"))
    assert [sample.fields["text"] for sample in samples.values()] == ["part 0", "part 1", "part 2"]
    assert not refused


@pytest.mark.parametrize("count", [1, 511, 100_000])
def test_zeros_behind_a_member_as_tapes_leave_them_are_nothing(count):
    padding = b"\0" * count
    rows = [{"text": f"{n} " + "x" * 1000} for n in range(300)]
    first, second = (gzip.compress(as_lines(part)) for part in (rows[:200], rows[200:]))
    corpus = corpus_with(first + padding + second + padding, "docs.jsonl.gz")
    samples, refused = contents(corpus)
    assert [sample.fields["text"] for sample in samples.values()] == [row["text"] for row in rows]
    assert not refused


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data + b"no member", "Not a gzipped file"),
        (lambda data: data[:-8] + b"12345678", "CRC check failed"),
        (lambda data: data[:-8], "ended before the end-of-stream marker"),
        (lambda data: data + data[:9], "ended before the end-of-stream marker"),
    ],
)
def test_all_before_a_damage_of_gzip_is_read(damage, said):
    rows = [{"text": f"{n} " + "x" * 1000} for n in range(300)]
    samples, (refused,) = contents(corpus_with(damage(gzip.compress(as_lines(rows))), "docs.jsonl.gz"))
    assert [sample.fields["text"] for sample in samples.values()] == [row["text"] for row in rows]
    assert (refused.error, refused.is_of_shard) == ("BrokenShard", True)
    assert f"docs.jsonl.gz is broken behind byte {len(as_lines(rows)):,} of its text" in refused.reason
    assert said in refused.reason


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=20))
def test_any_text_comes_back_as_it_was(texts):
    corpus = corpus_with(as_lines([{"text": text} for text in texts]), format="jsonl")
    samples, refused = contents(corpus)
    kept = [text for text in texts if text and not text.isspace()]
    assert [sample.fields["text"] for sample in samples.values()] == kept
    assert [one.error for one in refused] == ["EmptyText"] * (len(texts) - len(kept))


def test_a_key_may_be_a_field():
    rows = [{"text": "a", "id": 5}, {"text": "b", "id": "doc/6"}, {"text": "c"}, {"text": "d", "id": "../x"}]
    samples, refused = contents(corpus_with(as_lines(rows), key="id"))
    assert list(samples) == ["5", "doc/6"]
    assert [one.error for one in refused] == ["UnsafeKey", "UnsafeKey"]


def test_the_format_is_told_by_the_names_and_what_holds_no_text_is_named(place):
    place.create("a.jsonl.gz", gzip.compress(as_lines([{"text": "x"}])))
    place.create("LICENSE.md", b"no text of the corpus")
    place.create("cover.jpg", b"\xff")
    corpus = corpus_of(place.address, text="text")
    assert corpus.find().format == "jsonl"
    (told,) = left_out(corpus)
    assert told.startswith("2 files whose names are no texts' left out: LICENSE.md, cover.jpg")


@pytest.mark.parametrize(
    ("files", "settings", "said"),
    [
        ({"a.jsonl": as_lines([{"body": "x"}])}, {}, "no field 'text', but body. Name that of the text"),
        ({"a.json": b"[\n {},\n {}\n]\n"}, {}, "of its first 4 lines 1 are JSON objects: the line is no JSON"),
        ({"a.parquet": parquet_bytes({"body": ["x"]})}, {}, "no column 'text' of texts"),
        ({"a.parquet": parquet_bytes({"text": [1]})}, {}, "the column 'text' holds int64, not texts"),
        ({"a.parquet": parquet_bytes({"text": [b"x"]})}, {}, "the column 'text' holds bytes, not texts"),
        ({"a.parquet": parquet_bytes({"text": [b"x"]})}, {}, "Cast it to strings, as pyarrow's cast"),
        ({"a.jsonl": b"{}", "b.txt": b"x"}, {}, "Write `format: jsonl` or `format: text`"),
        ({"a.md": b"x"}, {}, "holds no texts, going by the names of its 1 files, such as a.md: JSON lines"),
        ({"a.txt": b"x"}, {"format": "jsonl"}, "holds no jsonl"),
    ],
)
def test_what_is_no_corpus_of_texts_is_refused_before_work(place, files, settings, said):
    for name, data in files.items():
        place.create(name, data)
    with pytest.raises(CorpusError, match=said.replace("(", r"\(")):
        units_of(corpus_of(place.address, **{"text": "text", **settings}))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"text": "t", "image": "jpg"}, "a corpus of texts, and `image` one of images"),
        ({"text": "t", "format": "tar"}, "a corpus of texts, and `format: tar` one of images"),
        ({"format": "text", "key": "id"}, "lines of plain text have none"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        corpus_of("corpus", **settings)


def test_one_file_is_taken_whatever_it_is_called(place):
    place.create("dump-2024", as_lines([{"text": "x"}]))
    samples, _ = contents(corpus_of(f"{place.address}/dump-2024", format="jsonl"))
    assert [sample.fields["text"] for sample in samples.values()] == ["x"]
