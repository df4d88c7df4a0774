"""Bad input: one bad sample costs that sample, with its reason; a broken shard is named; nothing else is lost."""

from __future__ import annotations

import json
import tarfile
from itertools import accumulate
from pathlib import Path

import pytest
from corpus_files import contents, corpus_of, memory_store, parquet_bytes, tar_bytes, units_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.pipeline.corpus import samples as samples_module
from tokenloom.pipeline.corpus.corpus import Rejection, Sample, UnitLimits
from tokenloom.pipeline.storage import store as storage
from tokenloom.pipeline.storage.errors import StorageError

GOOD = [("before.jpg", b"1"), ("before.txt", b"fine")]
AFTER = [("zz-after.jpg", b"2"), ("zz-after.txt", b"fine")]
GOOD_SAMPLES = {
    "before": Sample("before", b"1", {"caption": "fine"}),
    "zz-after": Sample("zz-after", b"2", {"caption": "fine"}),
}


def assert_only(bad: list[tuple[str, bytes] | tarfile.TarInfo], *expected: tuple[str, str, str]) -> None:
    """The tar of `bad` between good samples gives the good ones, and rejections (key, error, part of the reason)."""
    samples, rejected = contents(corpus_of(memory_store("a.tar", tar_bytes([*GOOD, *bad, *AFTER])).url))
    assert samples == GOOD_SAMPLES
    assert [(one.key, one.error) for one in rejected] == [(key, error) for key, error, _ in expected]
    for one, (_, _, reason) in zip(rejected, expected, strict=True):
        assert reason in one.reason
        json.dumps(one.reason + one.key).encode()


# --- single samples of a tar ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key", "reason"),
    [
        ("/etc/passwd.jpg", "/etc/passwd", "is an absolute path"),
        ("/etc/passwd", "/etc/passwd", "is an absolute path"),
        ("../up.jpg", "../up", "leads out of its folder"),
        ("a/../../up.jpg", "a/../../up", "leads out of its folder"),
        ("x" * 600 + ".jpg", "x" * 200 + "...", "is longer than 512 bytes"),
        ("写" * 171 + ".jpg", "写" * 171, "is longer than 512 bytes"),
    ],
)
def test_unsafe_member_names(name, key, reason):
    assert_only([(name, b"x")], (key, "UnsafeKey", reason))


@pytest.mark.parametrize(
    ("type", "what"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
    ],
)
def test_members_that_are_no_files(type, what):
    member = tarfile.TarInfo("evil.jpg")
    member.type, member.linkname = type, "/etc/passwd"
    assert_only([member], ("evil", "NotAFile", f"its member evil.jpg is {what}"))
    beside = tarfile.TarInfo("evil.txt")
    beside.type, beside.linkname = type, "/etc/passwd"
    assert_only([("evil.jpg", b"1"), beside], ("evil", "NotAFile", f"its member evil.txt is {what}"))


def test_folders_in_a_tar_are_no_samples():
    member = tarfile.TarInfo("folder.v1")
    member.type = tarfile.DIRTYPE
    assert_only([member])


def test_duplicate_keys():
    assert_only([("before.jpg", b"again")], ("before", "DuplicateKey", "same key"))
    assert_only([("x.txt", b""), ("before.png", b"2")], ("x", "NoImage", "only txt"), ("before", "DuplicateKey", ""))


def test_samples_without_an_image():
    assert_only([("x.txt", b"text"), ("x.json", b"{}")], ("x", "NoImage", "the sample has no image, only json, txt"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "Expecting"),
        (b"", "Expecting value"),
        (b"[1]", "it holds a list, not an object"),
        (b'"text"', "it holds a str"),
        (b'{"a": "\xff"}', "can't decode"),
        (b'{"a":' * 100_000, "recursion"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "digit"),
    ],
)
def test_json_that_is_no_object(data, reason):
    assert_only([("x.jpg", b"1"), ("x.json", data)], ("x", "InvalidJSON", reason))


def test_images_and_texts_that_are_too_large(monkeypatch):
    monkeypatch.setattr("tokenloom.pipeline.corpus.tar.LARGEST_IMAGE", 1_000)
    monkeypatch.setattr("tokenloom.pipeline.corpus.tar.LARGEST_TEXT", 500)
    monkeypatch.setattr(samples_module, "LARGEST_TEXT", 500)
    assert_only([("x.jpg", bytes(1_001))], ("x", "TooLarge", "its member x.jpg has 1,001 bytes, more than 1,000"))
    assert_only([("x.jpg", b"1"), ("x.txt", b"x" * 501)], ("x", "TooLarge", "its member x.txt has 501 bytes"))
    samples, rejected = contents(
        corpus_of(memory_store("a.tar", tar_bytes([("x.jpg", b"1"), ("x.cls", b"x" * 501)])).url)
    )
    assert (samples, rejected) == ({"x": Sample("x", b"1", {})}, [])


# --- texts ------------------------------------------------------------------------------------------------------------


def caption_of(data: bytes) -> str:
    store = memory_store("a.tar", tar_bytes([("x.jpg", b"1"), ("x.txt", data)]))
    return contents(corpus_of(store.url))[0]["x"].fields["caption"]


@pytest.mark.parametrize(
    "text",
    ["long " * 200_000 + "end", "bell \x07 and \x1b[31m", "\u202eשלם\u202c مرحبا", "👩‍👩‍👧‍👦🎈", "a\u2028b", ""],
)
def test_captions_come_through_unchanged(text):
    assert caption_of(text.encode()) == text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_tell_the_encoding(encoding):
    assert caption_of("café 图".encode(encoding)) == "café 图"
    store = memory_store("a.tar", tar_bytes([("x.jpg", b"1"), ("x.json", '{"a": "é"}'.encode(encoding))]))
    assert contents(corpus_of(store.url))[0]["x"].fields == {"a": "é"}


@pytest.mark.parametrize("data", ["café".encode("latin-1"), "图像".encode("gb18030"), b"\xff\xfe1", b"a \xed\xa0\x80"])
def test_a_caption_that_cannot_be_decoded_is_refused_and_never_guessed(data):
    assert_only([("x.jpg", b"1"), ("x.txt", data)], ("x", "NotText", "the caption beside the image is no UTF-"))
    store = memory_store("a.tar", tar_bytes([("x.jpg", b"1"), ("x.txt", data)]))
    assert contents(corpus_of(store.url, fields=[]))[0]["x"].fields == {}


def test_lone_surrogates_and_numbers_that_json_lacks_are_replaced_in_depth():
    data = rb'{"a": ["\ud800x", {"\udfff": "\ud83d\ude00"}], "nan": NaN, "inf": -Infinity, "huge": 1e999}'
    store = memory_store("a.tar", tar_bytes([("x.jpg", b"1"), ("x.json", data)]))
    fields = contents(corpus_of(store.url))[0]["x"].fields
    assert fields == {"a": ["\ufffdx", {"\ufffd": "😀"}], "nan": None, "inf": None, "huge": None}
    json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()


def test_names_that_are_no_utf8_keep_their_samples_apart(tmp_path):
    names = [b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), b"caf\xe8.jpg".decode("utf-8", "surrogateescape")]
    store = memory_store("a.tar", tar_bytes([(name, b"1") for name in names], tarfile.GNU_FORMAT))
    assert list(contents(corpus_of(store.url))[0]) == ["caf\\xe9", "caf\\xe8"]
    for name in names:
        Path(tmp_path, name).write_bytes(b"1")
    assert sorted(contents(corpus_of(str(tmp_path)))[0]) == ["caf\\xe8", "caf\\xe9"]


# --- broken tars ------------------------------------------------------------------------------------------------------

MEMBERS = [
    (f"{index:03d}.{extension}", bytes([65 + index % 26]) * (index * 37 % 900))
    for index in range(12)
    for extension in ("jpg", "txt")
]
WHOLE = tar_bytes(MEMBERS, tarfile.USTAR_FORMAT)


def sample_ends() -> list[int]:
    """The byte behind each sample of WHOLE: a header and padded content per member, two members a sample."""
    sizes = [512 + -(-len(data) // 512) * 512 for _, data in MEMBERS]
    return list(accumulate(sizes))[1::2]


@settings(deadline=None)
@given(st.integers(1, len(WHOLE) - 1))
def test_a_tar_cut_off_anywhere_gives_its_whole_samples_and_says_where_it_ends(length):
    store = memory_store("dir/a.tar", WHOLE[:length])
    samples, rejected = contents(corpus_of(store.url))
    whole = sum(end <= length for end in sample_ends())
    # A sample whose text was never begun can't be told from one without; otherwise exactly the whole ones are there.
    assert list(samples)[:whole] == [f"{index:03d}" for index in range(whole)]
    assert len(samples) <= whole + 1
    assert all(sample.image == MEMBERS[index * 2][1] for index, sample in enumerate(samples.values()))
    if length >= sample_ends()[-1] + 512:
        assert rejected == []
    else:
        assert [(one.key, one.error) for one in rejected] == [("", "BrokenShard")]
        assert "dir/a.tar is broken at byte " in rejected[0].reason


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=700), st.integers(0, len(WHOLE)), st.integers(1, 5))
def test_reading_restarts_at_any_unit_of_a_broken_tar(noise, at, limit):
    data = bytearray(WHOLE)
    data[at : at + len(noise)] = noise
    corpus = corpus_of(memory_store("a.tar", bytes(data)).url)
    limits = UnitLimits(limit, 2_000)
    (shard,) = corpus.shards()
    units = list(corpus.read(shard, limits=limits))
    for number, unit in enumerate(units):
        assert list(corpus.read(shard, unit.unit.start, limits=limits)) == units[number:]
        assert list(corpus.read(shard, unit.unit.start, unit.unit.stop, limits)) == [unit]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "bad.tar is broken at byte 0: the file is empty"),
        (b"no tar " * 200, "this is no tar"),
        (b"short", "the file ends before the archive does"),
        (
            tar_bytes([("a.jpg", b"1")])[:1_024],
            "broken at byte 1024: the file ends before the archive does",
        ),
    ],
)
def test_files_that_are_no_whole_tars(data, reason):
    store = memory_store("bad.tar", data)
    store.create("good.tar", tar_bytes([("b.jpg", b"1")]))
    bad, good = units_of(corpus_of(store.url))
    assert bad.unit.start == 0
    assert bad.unit.stop is None
    assert [(one.key, one.error) for one in bad.rejected] == [("", "BrokenShard")]
    assert bad.rejected[0].reason.startswith("bad.tar is broken")
    assert reason in bad.rejected[0].reason
    assert [sample.key for sample in good.samples] == ["b"]


def test_an_empty_tar_is_one_empty_unit():
    (unit,) = units_of(corpus_of(memory_store("a.tar", tar_bytes([])).url))
    assert (unit.unit.start, unit.unit.stop, unit.unit.count) == (0, None, 0)
    assert unit.samples == unit.rejected == []


def test_hostile_headers_cost_no_memory():
    huge = tarfile.TarInfo("././@LongLink")
    huge.type, huge.size = tarfile.GNUTYPE_LONGNAME, 2**40
    data = tar_bytes(GOOD)[:2_048] + huge.tobuf(tarfile.GNU_FORMAT) + bytes(1_024)
    samples, rejected = contents(corpus_of(memory_store("a.tar", data).url))
    assert list(samples) == ["before"]
    assert "a header of 1,099,511,627,776 bytes" in rejected[0].reason


def gnu_sparse(name: str, content: bytes, maps: int) -> bytes:
    """A sparse member as GNU's format has it, with so many blocks of its map behind the header."""
    member = tarfile.TarInfo(name)
    member.type, member.size = tarfile.GNUTYPE_SPARSE, len(content)
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[482] = maps > 0
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    blocks = [bytes(504) + bytes([number + 1 < maps]) + bytes(7) for number in range(maps)]
    return bytes(header) + b"".join(blocks) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def pax_sparse(name: str, content: bytes, **more: str) -> bytes:
    member = tarfile.TarInfo(f"GNUSparseFile.1/{name}")
    member.size, member.pax_headers = len(content), {"GNU.sparse.name": name, **more}
    return member.tobuf(tarfile.PAX_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")


@pytest.mark.parametrize("name", ["h.jpg", "h.txt"])
@pytest.mark.parametrize(
    "sparse",
    [
        lambda name: gnu_sparse(name, b"1" * 700, maps=0),
        lambda name: gnu_sparse(name, b"1" * 1024, maps=1),
        lambda name: gnu_sparse(name, b"", maps=3),
        lambda name: pax_sparse(name, b"1\n0\n512\n".ljust(512, b"\0") + b"1" * 512, **{"GNU.sparse.major": "1"}),
        lambda name: pax_sparse(name, b"1" * 10, **{"GNU.sparse.map": "0,10"}),
    ],
)
def test_a_sparse_member_costs_its_sample(name, sparse):
    begun = tar_bytes([*GOOD, ("h.png", b"1")])[: 512 * 6]
    store = memory_store("a.tar", begun + sparse(name) + tar_bytes(AFTER))
    samples, (refused,) = contents(corpus_of(store.url))
    assert samples == GOOD_SAMPLES
    assert (refused.key, refused.error) == ("h", "NotAFile")
    assert refused.reason == f"its member {name} is a sparse file"


def test_a_sparse_member_that_is_cut_off():
    for length in (512 * 4 + 600, 512 * 4 + 1024 + 10):
        data = (tar_bytes(GOOD)[: 512 * 4] + gnu_sparse("h.jpg", b"1" * 700, maps=1))[:length]
        samples, (refused,) = contents(corpus_of(memory_store("a.tar", data).url))
        assert (list(samples), refused.error) == (["before"], "BrokenShard")


# --- folders ----------------------------------------------------------------------------------------------------------


def test_bad_samples_of_a_folder(tmp_path):
    for name, data in {
        "a.jpg": b"", "b.jpg": b"text named .jpg", "c.jpg": b"3", "c.json": b"[]", "d.jpg": b"4", "d.k.jpg": b"5",
        "d.png": b"6",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
    samples, rejected = contents(corpus_of(str(tmp_path)))
    assert list(samples) == ["a", "b", "d", "d.k"]
    assert [(one.key, one.error) for one in rejected] == [("c", "InvalidJSON"), ("d", "DuplicateKey")]
    assert "d.png has the key of d.jpg" in rejected[1].reason


def test_duplicates_in_a_folder_are_found_across_units(tmp_path):
    for name in ("d.jpg", "d.k.jpg", "d.png"):
        (tmp_path / name).write_bytes(b"1")
    units = units_of(corpus_of(str(tmp_path)), UnitLimits(1))
    assert [unit.unit.count for unit in units] == [1, 1, 0]


# --- storage that fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["tar", "parquet", "folder"])
def test_a_failing_storage_is_no_bad_input(format, tmp_path, monkeypatch):
    if format == "tar":
        (tmp_path / "a.tar").write_bytes(tar_bytes([(f"{index}.jpg", bytes(10**6)) for index in range(12)]))
    elif format == "parquet":
        images = [bytes([index]) * 10**6 for index in range(12)]
        (tmp_path / "a.parquet").write_bytes(
            parquet_bytes({"jpg": images}, 4, use_dictionary=False, compression="NONE")
        )
    else:
        for index in range(12):
            (tmp_path / f"{index}.jpg").write_bytes(b"1")
    corpus = corpus_of(str(tmp_path))
    (shard,) = corpus.shards()
    monkeypatch.setattr(storage, "_FIRST_WAIT", 0.001)
    calls = []

    def failing(read):
        def wrapped(*arguments):
            calls.append(arguments)
            if len(calls) > 2:
                raise OSError(5, "Input/output error")
            return read(*arguments)

        return wrapped

    for method in ("read", "read_range"):
        monkeypatch.setattr(storage.LocalFiles, method, failing(getattr(storage.LocalFiles, method)))
    with pytest.raises(StorageError, match="Input/output error"):
        list(corpus.read(shard, limits=UnitLimits(1)))
    assert len(calls) == 2 + 10


def test_rejections_are_the_same_every_time():
    bad = [("/x.jpg", b"1"), ("y.json", b"["), ("y.jpg", b"1"), ("before.jpg", b"2")]
    store = memory_store("a.tar", tar_bytes([*GOOD, *bad]))
    first, second = (contents(corpus_of(store.url))[1] for _ in range(2))
    assert first == second
    assert [one.error for one in first] == ["UnsafeKey", "InvalidJSON", "DuplicateKey"]
    assert all(isinstance(one, Rejection) for one in first)
