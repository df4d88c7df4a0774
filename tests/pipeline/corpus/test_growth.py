"""What becomes of a corpus after a dataset took it up: identities stay, what is new is told from what has changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.pipeline.corpus.growth import grown
from tokenloom.pipeline.corpus.listing import Format, Found, find_files
from tokenloom.pipeline.corpus.reach import Reach
from tokenloom.pipeline.corpus.samples import CorpusError
from tokenloom.pipeline.corpus.taken import Listing, Taken, files_of


def found(files: dict[str, int], format: Format = "folder", root: str = "/corpus") -> Found:
    return Found(root, format, files)


def taken(*listings: dict[str, int], format: Format = "folder") -> Taken:
    state = Taken()
    everything: dict[str, int] = {}
    for files in listings:
        everything |= files
        state = grown(found(everything, format), state, None).taken
    return state


def ids(state: Taken) -> set[str]:
    return {shard.id for shard in state.shards("/corpus", None)}


@pytest.mark.parametrize(
    ("format", "before", "new"),
    [
        ("folder", {"a.jpg": 1, "b.jpg": 2}, {"c.jpg": 3, "c.txt": 4}),
        ("folder", {"2023/a.jpg": 1}, {"2024/a.jpg": 1}),
        ("folder", {"a.jpg": 1}, {"../other/a.jpg": 1}),
        ("tar", {"a.tar": 1}, {"b.tar": 2, "0.tar": 3}),
        ("parquet", {"a.parquet": 1}, {"../b/a.parquet": 1}),
    ],
)
def test_what_is_new_makes_shards_beside_the_others(format, before, new):
    first = taken(before, format=format)
    growth = grown(found({**before, **new}, format), first, None)
    assert growth.added is not None
    assert growth.added.files == new
    assert ids(first) < ids(growth.taken)
    assert (growth.changed, growth.gone, growth.left) == ([], [], [])
    again = grown(found({**before, **new}, format), growth.taken, None)
    assert (again.added, again.taken) == (None, growth.taken)


@pytest.mark.parametrize(
    ("format", "now", "changed", "gone"),
    [
        ("folder", {"a.jpg": 7, "b.jpg": 2, "b.txt": 3}, ["a.jpg"], []),
        ("folder", {"a.jpg": 1, "b.jpg": 2, "b.txt": 4}, ["b.txt"], []),
        ("folder", {"a.jpg": 1, "b.jpg": 2}, [], ["b.txt"]),
        ("folder", {"b.jpg": 2, "b.txt": 3}, [], ["a.jpg"]),
        ("folder", {"a.jpg": 1, "a.txt": 5, "b.jpg": 2, "b.txt": 3}, ["a.txt"], []),
        ("tar", {"a.tar": 7}, ["a.tar"], []),
    ],
)
@pytest.mark.parametrize("more", [{}, {"z.jpg": 9, "z.tar": 9}])
def test_what_has_changed_is_left_until_it_is_taken(format, now, changed, gone, more):
    before = {"a.jpg": 1, "b.jpg": 2, "b.txt": 3} if format == "folder" else {"a.tar": 1}
    now = now | {path: size for path, size in more.items() if (path == "z.tar") == (format == "tar")}
    first = taken(before, format=format)
    growth = grown(found(now, format), first, None)
    assert (growth.changed, growth.gone) == (changed, gone)
    assert {shard.id for shard in growth.left} == ids(first)
    assert ids(first) <= ids(growth.taken)
    assert not {shard.id for shard in growth.shards} & ids(first)
    renewed = grown(found(now, format), first, None, take_changes=True)
    assert not ids(renewed.taken) & ids(first)
    covered = {path: size for shard in renewed.shards for path, size in files_of(shard, "/corpus").items()}
    assert covered == now
    back = grown(found(before, format), renewed.taken, None, take_changes=True)
    if not any(path.endswith(".jpg") for path in gone):
        assert ids(back.taken) == ids(first)  # nothing has to be made again


def test_another_corpus_is_refused():
    first = taken({"a.tar": 1, "b.tar": 2}, format="tar")
    with pytest.raises(CorpusError, match=r"of the 2 files that were taken up before, such as a.tar, none is in"):
        grown(found({"c.tar": 1}, "tar"), first, None, take_changes=True)


def test_a_key_belongs_to_whoever_had_it_first():
    first = taken({"a.png": 1})
    growth = grown(found({"a.png": 1, "a.jpg": 2}), first, None)
    late = next(shard for shard in growth.shards if shard.id not in ids(first))
    assert dict(late.doubled) == {"a.jpg": "a.png"}
    elsewhere = grown(found({"b/a.jpg": 1, "../b/a.jpg": 2}), Taken(), None)
    assert [dict(shard.doubled) for shard in elsewhere.shards] == [{}, {"a.jpg": "../b/a.jpg"}]


@pytest.mark.parametrize(
    ("holder", "late"), [("a.jpg", "a.png"), ("sub/a.png", "sub/a.bmp"), ("../b/a.jpg", "b/a.jpg")]
)
def test_who_had_no_key_gets_it_when_its_holder_is_gone(holder, late):
    before = taken({holder: 1, "z.jpg": 1}, {late: 2})
    (refused,) = (shard for shard in before.shards("/corpus", None) if shard.doubled)
    now = found({late: 2, "z.jpg": 1})
    growth = grown(now, before, None)
    assert growth.gone == [holder]
    assert refused in growth.left
    renewed = grown(now, before, None, take_changes=True)
    assert [shard.doubled for shard in renewed.shards] == [()] * len(renewed.shards)
    assert late in {path for shard in renewed.shards for path in files_of(shard, "/corpus")}
    again = grown(now, renewed.taken, None, take_changes=True)
    assert (again.taken, again.left) == (renewed.taken, [])
    back = grown(found({holder: 1, late: 2, "z.jpg": 1}), renewed.taken, None)
    assert [shard.doubled for shard in back.shards if shard.doubled] == [((holder.rpartition("/")[2], late),)]


def test_a_holder_that_was_dropped_before_is_asked_for_again():
    """As datasets have it that were taken up when nobody asked."""
    before = taken({"a.jpg": 1, "b.jpg": 1}, {"a.png": 2})
    gone = next(shard for shard in before.shards("/corpus", None) if not shard.doubled)
    stale = Taken((*before.listings, Listing("folder", {"b.jpg": 1})), frozenset({gone.id}))
    renewed = grown(found({"a.png": 2, "b.jpg": 1}), stale, None, take_changes=True)
    assert [dict(shard.doubled) for shard in renewed.shards] == [{}, {}]


@pytest.mark.slow
def test_many_images_of_a_folder_are_several_shards():
    files = {f"{number:05d}.jpg": 1 for number in range(9000)}
    shards = taken(files).shards("/corpus", None)
    assert [len(shard.files) for shard in shards] == [4096, 4096, 808]
    assert len({shard.id for shard in shards}) == 3
    renewed = grown(found({**files, "05000.jpg": 2}), taken(files), None, take_changes=True)
    assert len({shard.id for shard in renewed.shards} & {shard.id for shard in shards}) == 2


NAMES = st.sampled_from(
    [f"{folder}{name}" for folder in ("", "a/", "../b/") for name in ("1.jpg", "1.png", "1.txt", "2.jpg")]
)
FILES = st.dictionaries(NAMES, st.integers(1, 3))


def images(files: dict[str, int]) -> dict[str, int]:
    """The files that belong to images, as listings have them."""
    stems = {path.rpartition(".")[0] for path in files if not path.endswith(".txt")}
    return {path: size for path, size in files.items() if path.rpartition(".")[0] in stems}


@settings(max_examples=60)
@given(st.lists(st.tuples(FILES, st.booleans()), min_size=1, max_size=5))
def test_every_file_is_in_one_shard_or_named(history):
    state = Taken()
    for files, takes in history:
        now = images(files)
        try:
            growth = grown(found(now), state, None, takes)
        except CorpusError:
            continue
        state = growth.taken
        inside = [path for shard in growth.shards for path in files_of(shard, "/corpus") if not path.endswith(".txt")]
        assert len(inside) == len(set(inside))
        left = {path for shard in growth.left for path in files_of(shard, "/corpus")}
        assert set(inside) | left >= {path for path in now if not path.endswith(".txt")}
        for shard in growth.shards:
            assert all(now[path] == size for path, size in files_of(shard, "/corpus").items())
        keys = {
            shard.path + "/" + name.rpartition(".")[0]
            for shard in growth.shards
            for name, _ in shard.files
            if name not in dict(shard.doubled) and not name.endswith(".txt")
        }
        singles = [
            name
            for s in growth.shards
            for name, _ in s.files
            if not name.endswith(".txt") and name not in dict(s.doubled)
        ]
        assert len(keys) == len(singles)
        if takes:
            assert len(keys) == len({path.removeprefix("../").rpartition(".")[0] for path in now})
        assert Taken(tuple(Listing.from_bytes(one.to_bytes()) for one in state.listings), state.retired) == state


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (["2023"], ["2023", "2024"]),
        (["2023"], ["2024", "2023"]),
        (["2023"], [""]),
        (["2023"], ["{2023,2024}"]),
        (["2023/*.jpg"], ["202*/*.jpg"]),
        (["2023/a.jpg"], ["2023"]),
        (["2023", "2024"], ["2024", "2023", "more/deep"]),
    ],
)
def test_paths_stay_when_urls_are_added(tmp_path, first, later):
    photos = tmp_path / "photos"
    for name in ("2023/a.jpg", "2024/b.jpg", "more/deep/c.jpg"):
        Path(photos, name).parent.mkdir(parents=True, exist_ok=True)
        Path(photos, name).write_bytes(b"1")
    before = find_files([str(photos / url) for url in first], None, None, Reach({}, {}))
    after = find_files([str(photos / url) for url in later], None, None, Reach({}, {}), before.root)
    assert after.root == before.root
    assert before.files.keys() <= after.files.keys()
    moved = photos.rename(tmp_path / "moved")
    elsewhere = find_files([str(moved / url) for url in first], None, None, Reach({}, {}), before.root)
    assert elsewhere.files == before.files
