"""The reader of Qt resource containers, against a writer of them; and which photographs stand for one series."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from learning import part, series_of
from real_photographs import resources

NAMES = st.text(st.characters(exclude_characters="/", codec="utf-16"), min_size=1, max_size=5)
TREES = st.recursive(
    st.tuples(st.binary(max_size=40), st.booleans()), lambda below: st.dictionaries(NAMES, below, max_size=4)
)


def write_container(tree: dict, version: int) -> bytes:
    """A container of nested folders, whose leaves are (content, whether it is compressed); breadth first, as rcc."""
    nodes: list[tuple[str, object]] = [("", tree)]
    fields, names, contents = b"", b"", b""
    place = 0
    while place < len(nodes):
        name, item = nodes[place]
        place += 1
        head = len(names)
        names += struct.pack(">HI", len(name.encode("utf-16-be")) // 2, 0) + name.encode("utf-16-be")
        if isinstance(item, dict):
            fields += struct.pack(">IHII", head, 2, len(item), len(nodes))
            nodes += item.items()
        else:
            content, squeezed = item  # type: ignore[misc]
            packed = struct.pack(">I", len(content)) + zlib.compress(content) if squeezed else content
            fields += struct.pack(">IHHHI", head, int(squeezed), 0, 0, len(contents))
            contents += struct.pack(">I", len(packed)) + packed
        fields += bytes(8 if version > 1 else 0)
    header = struct.pack(">4s4I", b"qres", version, 24, 24 + len(fields) + len(names), 24 + len(fields))
    return header + bytes(4) + fields + names + contents


def flatten(tree: dict, folder: str = "") -> dict[str, bytes]:
    found = {}
    for name, item in tree.items():
        path = f"{folder}/{name}"
        found |= flatten(item, path) if isinstance(item, dict) else {path: item[0]}
    return found


@pytest.mark.slow
@given(st.dictionaries(NAMES, TREES, max_size=4), st.sampled_from([1, 2, 3]))
def test_a_container_gives_back_its_files(tree, version):
    assert dict(resources(write_container(tree, version))) == flatten(tree)


def test_another_file_is_refused():
    with pytest.raises(ValueError, match="qres"):
        list(resources(b"\x89PNG" + bytes(100)))


def test_zstandard_is_refused_by_name():
    container = bytearray(write_container({"a.png": (b"abc", False)}, 3))
    container[24 + 22 + 5] = 4  # the flags of the second node
    with pytest.raises(ValueError, match=r"/a\.png is compressed with Zstandard"):
        list(resources(bytes(container)))


@pytest.mark.parametrize(
    ("stem", "series"),
    [
        ("motorcycle_left", "motorcycle"),
        ("motorcycle_right", "motorcycle"),
        ("renewable-windmill12", "windmill"),
        ("renewable-windmill", "windmill"),
        ("wonders-tajMahal", "tajmahal"),
        ("001", "001"),
    ],
)
def test_series(stem, series):
    assert series_of(stem) == series


@pytest.mark.slow
@given(st.lists(st.from_regex(r"[a-d]{1,2}[0-9]?", fullmatch=True), min_size=3, unique=True), st.integers(0, 4))
def test_a_series_is_not_parted(stems, fold):
    training, held_out = part([Path(f"{stem}.jpg") for stem in stems], fold)
    assert sorted(path.stem for path in training + held_out) == sorted(stems)
    assert not {series_of(path.stem) for path in training} & {series_of(path.stem) for path in held_out}
    assert held_out
