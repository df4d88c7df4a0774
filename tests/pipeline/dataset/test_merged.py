"""Merged shards as bytes, and their lists: each unit's rows by a range, and whatever isn't as it was written told."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from tokenloom.pipeline.corpus.units import Unit
from tokenloom.pipeline.dataset.layout import merged_stem, merges_path
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.dataset.merged import provide_merged
from tokenloom.pipeline.dataset.merges import Merges, Places, publish_merges, read_merges
from tokenloom.pipeline.dataset.shard_meta import BrokenShardError
from tokenloom.pipeline.dataset.shards import (
    RowKeys,
    ShardMeta,
    read_labels,
    read_token_column,
    read_token_table,
    read_tokens,
    write_labels,
    write_tokens,
)
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.contract.token_spec import TokenSpec

SPEC = TokenSpec("grid", 60_000, 2000, 2000)
TOKENS, LABELS = "grid/tokens-0123456789abcdef", "grid/labels-0123456789abcdef"


def unit_of(number: int, count: int) -> Unit:
    return Unit("photos-0123456789ab", 100 * number, 100 * number + 100, count)


def written(store: Store, folder: str, number: int, count: int, revision: int = 0) -> Unit:
    """A unit's own shard, of random rows; every fifth is null."""
    rng, unit = np.random.default_rng(number), unit_of(number, count)
    rows = RowKeys.of([f"{'long/' * 30 * (number % 2)}{number}/{at}" for at in range(count)], 1)
    meta = ShardMeta(unit.name, "grid", "0123456789abcdef", f"{number:064d}", "")
    if folder == TOKENS:
        values = [None if at % 5 == 4 else rng.integers(0, 60_000, 2000).astype(np.uint16) for at in range(count)]
        data, extension = write_tokens(rows, values, SPEC, meta), "parquet"
    else:
        labels = [None if at % 5 == 4 else rng.bytes(4000) for at in range(count)]
        data, extension = write_labels(rows, labels, "npy", meta), "tar"
    stem = f"{unit.name}-r{revision}" if revision else unit.name
    store.create(f"{folder}/{stem}.{extension}", data)
    return unit


class CountingFile(io.RawIOBase):
    """A file that knows how many bytes were read of it."""

    def __init__(self, data: bytes) -> None:
        self._file, self.bytes = io.BytesIO(data), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.bytes += len(data)
        return data

    def readinto(self, buffer) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@pytest.mark.parametrize("folder", [TOKENS, LABELS])
def test_the_rows_of_one_unit_are_read_by_a_range(folder, tmp_path):
    """As its own shard has them, also where units without samples lie between."""
    store = Store(tmp_path)
    units = [written(store, folder, number, 0 if number % 7 == 3 else 30) for number in range(30)]
    extension = "parquet" if folder == TOKENS else "tar"
    size = provide_merged(store, folder, "npy", [(unit, 0) for unit in units])
    merged = store.read(f"{folder}/{merged_stem(unit.name for unit in units)}.{extension}")
    assert size == len(merged)
    for unit in units:
        own, file = store.read(f"{folder}/{unit.name}.{extension}"), CountingFile(merged)
        if folder == TOKENS:
            (meta, table), (own_meta, own_table) = read_token_table(file, unit=unit.name), read_token_table(own)
            assert (meta, table.to_pylist()) == (own_meta, own_table.to_pylist())
        else:
            assert read_labels(file, unit.name) == read_labels(own)
        assert file.bytes < len(merged) / 5
    read = read_tokens if folder == TOKENS else read_labels
    with pytest.raises(BrokenShardError, match="it holds 30 units, and other isn't among them"):
        read(merged, "other")


@pytest.mark.parametrize("folder", [TOKENS, LABELS])
def test_a_bit_that_was_flipped_before_is_not_sealed_again(folder, tmp_path):
    store, rng = Store(tmp_path), random.Random(0)
    units = [written(store, folder, number, 5) for number in range(3)]
    path = f"{folder}/{units[1].name}.{'parquet' if folder == TOKENS else 'tar'}"
    data = store.read(path)
    for _ in range(20):
        broken, at = bytearray(data), rng.randrange(8 * len(data))
        broken[at // 8] ^= 1 << at % 8
        store.replace(path, bytes(broken))
        with pytest.raises(BrokenShardError, match=units[1].name):
            provide_merged(store, folder, "npy", [(unit, 0) for unit in units])
    assert [entry.name for entry in store.list(folder) if "merged" in entry.name] == []


@pytest.mark.parametrize("left", ["half", "flipped", "whole"])
def test_what_a_writer_that_died_left_is_taken_only_if_it_is_whole(left, tmp_path):
    store = Store(tmp_path)
    units = [written(store, TOKENS, number, 5) for number in range(3)]
    path = f"{TOKENS}/{merged_stem(unit.name for unit in units)}.parquet"
    provide_merged(store, TOKENS, "", [(unit, 0) for unit in units])
    data = store.read(path)
    flipped = data[:100] + bytes([data[100] ^ 1]) + data[101:]
    store.replace(path, {"half": data[: len(data) // 2], "flipped": flipped, "whole": data}[left])
    provide_merged(store, TOKENS, "", [(unit, 0) for unit in units])
    assert store.read(path) == data


def test_a_shard_of_another_name_is_not_merged(tmp_path):
    store = Store(tmp_path)
    units = [written(store, TOKENS, number, 5) for number in range(2)]
    one, other = (f"{TOKENS}/{unit.name}.parquet" for unit in units)
    store.replace(one, store.read(other))
    with pytest.raises(BrokenShardError, match=f"{units[0].name}.parquet: it isn't what its name says"):
        provide_merged(store, TOKENS, "", [(unit, 0) for unit in units])


def test_a_list_is_read_as_it_was_written_and_any_flipped_bit_is_found():
    merges = Merges({"merged-0123456789abcdef": ("a-r1", "b"), "merged-fedcba9876543210": ("b", "c")})
    data = merges.to_bytes()
    assert Merges.from_bytes(data, "x").shards == merges.shards
    assert [merges.holder(stem) for stem in ("a-r1", "a", "b", "c")] == [
        "merged-0123456789abcdef", None, "merged-0123456789abcdef", "merged-fedcba9876543210",
    ]  # fmt: skip
    for at in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(DatasetError, match="x: its bytes aren't those that were written: put back a copy"):
            Merges.from_bytes(bytes(flipped), "x")


def test_who_loses_the_race_for_a_number_takes_up_what_the_winner_wrote(tmp_path):
    store, mine, theirs = Store(tmp_path), {"merged-1": ("a",)}, {"merged-2": ("b",)}

    def change(now: Merges) -> Merges:
        if not now.shards:  # meanwhile
            store.create(merges_path(TOKENS, 1), Merges(theirs).to_bytes())
        return Merges({**mine, **now.shards})

    publish_merges(store, TOKENS, change)
    assert read_merges(store, TOKENS).shards == {**mine, **theirs}
    assert [entry.name for entry in store.list(f"{TOKENS}/merges")] == ["00000001.json", "00000002.json"]


def test_a_unit_is_found_where_it_is_now(tmp_path):
    """By who has looked before it was merged, and its own shard deleted; and where the merged one is gone."""
    store, places = Store(tmp_path), Places(Store(tmp_path))
    units = [written(store, TOKENS, number, 2) for number in range(2)]
    own, merged = f"{TOKENS}/{units[0].name}.parquet", merged_stem(unit.name for unit in units)
    assert places.path(TOKENS, units[0].name) == own
    provide_merged(store, TOKENS, "", [(unit, 0) for unit in units])
    publish_merges(store, TOKENS, lambda now: Merges({merged: tuple(unit.name for unit in units)}))
    data = store.read(own)
    store.delete(own)
    whole = store.read(f"{TOKENS}/{merged}.parquet")
    assert places.read(TOKENS, units[0].name, store.read) == whole
    store.create(own, data)
    store.delete(f"{TOKENS}/{merged}.parquet")
    assert places.read(TOKENS, units[0].name, store.read) == data
    store.delete(own)
    with pytest.raises(FileNotFoundError):
        places.read(TOKENS, units[0].name, store.read)


@pytest.mark.parametrize("folder", [TOKENS, LABELS])
def test_a_flipped_bit_gives_no_other_rows_of_a_unit_that_is_read_alone(folder, tmp_path):
    """Wherever it is: in the rows, in what says where they lie, or whose they are."""
    store, rng = Store(tmp_path), random.Random(0)
    units = [written(store, folder, number, 2) for number in range(8)]  # whose names differ in a bit
    provide_merged(store, folder, "npy", [(unit, 0) for unit in units])
    (path,) = (entry.name for entry in store.list() if "merged" in entry.name)
    data, told = store.read(path), 0

    def read(data: bytes, unit: Unit) -> list:
        source = CountingFile(data)
        if folder == LABELS:
            return [read_labels(source, unit.name).labels]
        _, rows, tokens = read_token_column(source, unit.name)
        return [rows, tokens.to_pylist()]

    expected = {unit: read(data, unit) for unit in units}
    middle = next(at for at in range(len(data)) if data[at:].startswith(b"tokenloom.parts"))
    places = [*rng.sample(range(len(data)), 30), *rng.sample(range(middle, middle + 600), 40)]
    for at in places:
        broken = bytearray(data)
        broken[at] ^= 1 << rng.randrange(8)
        for unit in rng.sample(units, 2):
            try:
                assert read(bytes(broken), unit) == expected[unit]
            except BrokenShardError:
                told += 1
    assert told > 20
