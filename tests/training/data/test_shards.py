"""Shards on their way to a batch: the cache, what is read ahead, and what is done with those that are broken."""

from __future__ import annotations

import errno
import os
import re
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import without_ray
from small_dataset import SmallDataset, path_of, rewrite_tokens, write_dataset
from tokenloom.pipeline.compact import compact
from tokenloom.pipeline.dataset.layout import is_merged
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.dataset.shards import BrokenShardError
from tokenloom.pipeline.plan.recipe_file import RecipeError
from tokenloom.pipeline.storage.errors import StorageError
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.data.batch import Batch
from tokenloom.training.data.batches import Batches
from tokenloom.training.data.opening import OpenData, open_data
from tokenloom.training.data.read_ahead import reading_ahead
from tokenloom.training.data.shard_cache import ShardCache
from tokenloom.training.data.shards import ShardStore
from training_recipes import NAMES, content, opened, two_datasets, written


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.name != "used")


def remote(small: SmallDataset, folder: Path, **data: Any) -> OpenData:
    """A recipe of that dataset alone."""
    more = {"datasets": {"a": {"url": small.store.url}}, "batch_size": 4, **data}
    return open_data(written(folder / "train.yaml", content(folder, **more)))


@contextmanager
def counting_gets() -> Iterator[Counter[str]]:
    """Of which shards, whole or in parts."""
    counts = Counter[str]()

    def counted(operation: Any) -> Any:
        def count(store: Store, path: str, *more: Any) -> bytes:
            counts[path] += path.endswith((".parquet", ".tar"))
            return operation(store, path, *more)

        return count

    with pytest.MonkeyPatch.context() as patch:
        for name in ("read", "read_range"):
            patch.setattr(Store, name, counted(getattr(Store, name)))
        yield counts


# --- the cache --------------------------------------------------------------------------------------------------------


def test_a_shard_is_checked_when_it_comes_and_kept(tmp_path):
    small = write_dataset(f"memory://{uuid.uuid4()}")
    store = ShardStore(small.store.url, cache=ShardCache(tmp_path / "cache", 10**6))
    first, second = (small.token_path("dinov2", unit) for unit in small.units[:2])
    data = store.read(first)
    small.store.delete(first)
    assert store.read(first) == data
    broken = bytearray(small.store.read(second))
    broken[40] ^= 1
    small.store.replace(second, bytes(broken))
    with pytest.raises(BrokenShardError, match="its checksum is"):
        store.read(second)


def test_a_local_dataset_is_not_copied(tmp_path):
    small = write_dataset(tmp_path / "dataset")
    ShardStore(small.store.url, cache=ShardCache(tmp_path / "cache", 10**6)).read(
        small.token_path("dinov2", small.units[0])
    )
    assert not (tmp_path / "cache").exists()


def same_batches(data: OpenData, expected: list[Batch]) -> bool:
    made = reading_ahead(Batches(data.mixture, 4))
    return all(np.array_equal(next(made).inputs.ids, batch.inputs.ids) for batch in expected)


@pytest.mark.parametrize("merged", [False, True])
def test_what_is_spoilt_in_the_cache_comes_from_the_store_again(tmp_path, merged, caplog):
    small = write_dataset(f"memory://{uuid.uuid4()}")
    stream = iter(Batches(remote(small, tmp_path).mixture, 4))
    expected = [next(stream) for _ in range(8)]
    if merged:
        with without_ray():
            compact(small.store.url)
    cache = {"folder": str(tmp_path / "cache")}
    assert same_batches(remote(small, tmp_path, cache=cache), expected)
    kept = sorted((tmp_path / "cache").glob("*.shard"))
    rng = np.random.default_rng(0)
    for path in kept:
        data = bytearray(path.read_bytes())
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(data))
    for most in (3 * len(kept) if merged else len(kept), 0):  # of one that is spoilt a unit is read in pieces
        with counting_gets() as counts:
            assert same_batches(remote(small, tmp_path, cache=cache), expected)
        assert sum(counts.values()) <= most
    assert not caplog.records


@pytest.mark.parametrize("merged", [False, True])
def test_batches_are_the_same_without_room_on_the_disk(tmp_path, monkeypatch, merged, caplog):
    small = write_dataset(f"memory://{uuid.uuid4()}")
    stream = iter(Batches(remote(small, tmp_path).mixture, 4))
    expected = [next(stream) for _ in range(4)]
    if merged:
        with without_ray():
            compact(small.store.url)

    def no_room(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    cached = remote(small, tmp_path, cache={"folder": str(tmp_path / "cache")}, broken="skip")
    assert same_batches(cached, expected)
    (record,) = caplog.records
    assert "(No space left on device)" in record.getMessage()


def test_another_dataset_at_the_place_is_not_taken_for_what_was_kept(tmp_path):
    """Made anew, with texts of the same length; and nobody asks for sizes that a listing told."""
    small = write_dataset(f"memory://{uuid.uuid4()}")
    cache, path = ShardCache(tmp_path / "cache", 10**6), small.token_path("dinov2", small.units[0])

    def read() -> bytes:
        store = ShardStore(small.store.url, cache=cache)
        store.list("dinov2")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "stat", None)
            return store.read(path)

    before = read()
    rewrite_tokens(small, "dinov2", small.units[0], change=lambda tokens: tokens[::-1])
    after = small.store.read(path)
    assert len(after) == len(before)
    assert after != before
    with counting_gets() as counts:
        assert [read() for _ in range(2)] == [after, after]
    assert counts[path] == 1


def test_stores_are_told_apart_by_all_but_credentials(monkeypatch):
    def identity(url: str, **options: Any) -> str:
        return Store(url, options).identity

    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    told = {
        identity("s3://bucket/set"),
        identity("s3://bucket/other"),
        identity("s3://bucket/set", endpoint_url="http://here"),
        identity("s3://bucket/set", client_kwargs={"endpoint_url": "http://there"}),
        identity("abfs://bucket/set", account_name="one"),
        identity("abfs://bucket/set", account_name="two"),
    }
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere")
    told.add(identity("s3://bucket/set"))
    assert len(told) == 7
    secret = identity("s3://bucket/set", key="AKIA1", secret="one", client_kwargs={"aws_session_token": "one"})
    assert secret == identity("s3://bucket/set", key="AKIA2", secret="two", client_kwargs={"aws_session_token": "two"})
    assert "AKIA" not in secret


@pytest.mark.s3
def test_listings_of_s3_tell_contents_apart(s3_url):
    store = Store(s3_url)
    seen: list[str] = []
    for data in (b"one", b"two", b"one"):
        store.replace("a/b.tar", data)
        (entry,) = store.list("a")
        assert store.stat("a/b.tar").version == entry.version
        seen.append(entry.version)
    assert seen[0] == seen[2] != seen[1]


# --- reading ahead ----------------------------------------------------------------------------------------------------


def test_threads_read_what_comes_next_once(tmp_path, monkeypatch):
    two_datasets(tmp_path)
    read = Counter[str]()
    whole = ShardStore._read

    def counting(self: ShardStore, path: str) -> bytes:
        if path.endswith(".parquet"):
            assert threading.current_thread().name.startswith("shards")
            read[f"{self.url}/{path}"] += 1
        return whole(self, path)

    plain = [opened(tmp_path, window=16).mixture.batch(np.arange(at, at + 1024)) for at in (0, 1024)]
    data = opened(tmp_path, window=16)
    monkeypatch.setattr(ShardStore, "_read", counting)
    made = reading_ahead(Batches(data.mixture, 1024))
    for expected in plain:
        batch = next(made)
        np.testing.assert_array_equal(batch.inputs.ids, expected.inputs.ids)
    assert set(read.values()) == {1}
    assert len(read) == (4 + 6) * len(NAMES)


@pytest.mark.parametrize(
    ("rank", "ranks", "made_at_once", "windows"),
    [(0, 1, 4, (1, 2, 5)), (31, 64, 4, (2, 16)), (0, 1, 64, (3, 16)), (31, 64, 64, (5,))],
)
def test_reading_ahead_goes_on_epoch_after_epoch(tmp_path, monkeypatch, rank, ranks, made_at_once, windows):
    """Whatever the window: threads read all, also after a state was loaded, and nothing is left over at the end."""
    two_datasets(tmp_path)
    monkeypatch.setattr("tokenloom.training.data.batches._BLOCK", made_at_once)
    monkeypatch.setattr("tokenloom.training.data.batches._SPAN", made_at_once)
    whole, direct = ShardStore._read, list[str]()

    def noting(self: ShardStore, path: str) -> bytes:
        if path.endswith(".parquet") and not threading.current_thread().name.startswith("shards"):
            direct.append(path)
        return whole(self, path)

    monkeypatch.setattr(ShardStore, "_read", noting)
    for window in windows:
        data = opened(tmp_path, window=window)
        batches = Batches(data.mixture, 4, rank, ranks)
        made = reading_ahead(batches)
        for turn in range(40):
            next(made)
            if turn == 20:
                batches.position += 36 * ranks
        made.close()
        stores = [one.reader.store for one in data.mixture.datasets]
        assert not any(one._coming for one in stores if isinstance(one, ShardStore))
    assert not direct


def test_units_that_another_rank_reads_are_not_asked_for(tmp_path, monkeypatch):
    two_datasets(tmp_path)
    data, asked, read = opened(tmp_path), Counter[str](), Counter[str]()
    fetch, take = ShardStore.fetch, ShardStore.read

    def fetching(self: ShardStore, paths: list[str]) -> None:
        asked.update(f"{self.url}/{path}" for path in paths)
        fetch(self, paths)

    def taking(self: ShardStore, path: str) -> bytes:
        read[f"{self.url}/{path}"] += 1
        return take(self, path)

    monkeypatch.setattr(ShardStore, "fetch", fetching)
    monkeypatch.setattr(ShardStore, "read", taking)
    made = reading_ahead(Batches(data.mixture, 1, 31, 10_000))
    for _ in range(30):
        next(made)
    assert (asked - read).total() <= len(NAMES)  # of the next batch
    assert not read - asked


# --- merged shards ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [1e9, 1000])
def test_merged_shards_come_once_each_through_the_cache(tmp_path, room):
    """For two processes' loaders and two epochs; where the cache has no room for them, in pieces."""
    small = write_dataset(f"memory://{uuid.uuid4()}")
    stream = iter(Batches(remote(small, tmp_path).mixture, 4))
    expected = [next(stream) for _ in range(8)]
    with without_ray():
        compact(small.store.url)
    cache = {"folder": str(tmp_path / "cache"), "gigabytes": room / 1e9}
    loaders = [reading_ahead(Batches(remote(small, tmp_path, cache=cache).mixture, 4)) for _ in range(2)]
    with counting_gets() as counts:
        for batch in expected:
            for made in loaders:
                np.testing.assert_array_equal(next(made).inputs.ids, batch.inputs.ids)
    assert all(is_merged(path) for path in counts if counts[path])
    if room > 1000:
        assert sorted(path.partition("/")[0] for path in counts.elements()) == sorted(NAMES)
    else:
        assert sum(counts.values()) > 2 * 4 * len(NAMES)
    assert not (tmp_path / "cache").exists() or size_of(tmp_path / "cache") <= room


def test_who_reads_merged_shards_in_pieces_is_told_of_the_cache(tmp_path):
    small = write_dataset(f"memory://{uuid.uuid4()}")
    told = "a: its shards are merged, and are fetched once each with `cache`; without, in pieces"
    assert told not in remote(small, tmp_path).notes
    with without_ray():
        compact(small.store.url)
    assert told in remote(small, tmp_path).notes
    assert told not in remote(small, tmp_path, cache={"folder": str(tmp_path / "cache")}).notes


# --- broken shards ----------------------------------------------------------------------------------------------------


def flip(small: Any, unit: Any) -> str:
    path = path_of(small, small.token_path("dinov2", unit))
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(bytes(data))
    return f"{path}: its checksum is"


def truncate(small: Any, unit: Any) -> str:
    path = path_of(small, small.token_path("dinov2", unit))
    path.write_bytes(path.read_bytes()[:300])
    return f"{path}: it carries no checksum: cut off"


def swap(small: Any, unit: Any) -> str:
    rewrite_tokens(small, "dinov2", unit, order=[1, 0, 2, 3])
    return "don't hold the same samples in the same order"


def take(data: Any) -> Batch:
    return next(iter(Batches(data.mixture, 160)))


@pytest.mark.parametrize(("damage", "lacking"), [(flip, ["dinov2"]), (truncate, ["dinov2"]), (swap, NAMES)])
def test_a_broken_shard_stops_the_run_or_is_masked(tmp_path, caplog, damage, lacking):
    small, _ = two_datasets(tmp_path)
    whole, stopping, skipping = opened(tmp_path), opened(tmp_path), opened(tmp_path, broken="skip")
    expected = take(whole)
    said = damage(small, small.units[1])
    with pytest.raises(DatasetError, match=re.escape(said)):
        take(stopping)
    batch = take(skipping)
    (record,) = caplog.records
    assert said in record.getMessage()
    assert "masked in 4 samples" in record.getMessage()
    hit = np.zeros(160, bool)
    for source, places in skipping.mixture.places(batch.positions):
        if source == 0:
            hit[places.position] = places.unit == 1
    assert hit.any()
    for side, other in ((batch.inputs, expected.inputs), (batch.targets, expected.targets)):
        np.testing.assert_array_equal(side.ids[~hit], other.ids[~hit])
        there = set(side.modality[hit].ravel().tolist()) - {-1}
        assert there == {batch.modalities.index(name) for name in NAMES if name not in lacking}


def test_a_shard_that_is_gone_is_masked_and_storage_that_is_down_is_not(tmp_path, monkeypatch, caplog):
    small, _ = two_datasets(tmp_path)
    data = opened(tmp_path, broken="skip")
    path_of(small, small.token_path("caption", small.units[0])).unlink()
    take(data)
    assert "does not exist" in caplog.text

    def down(self: ShardStore, path: str) -> bytes:
        raise StorageError("could not read it", self.url)

    [held.clear() for held in data.mixture.holding._held]
    monkeypatch.setattr(ShardStore, "read", down)
    with pytest.raises(StorageError):
        take(data)


@pytest.mark.parametrize("inputs", [NAMES, ["dinov2", "caption"], ["dinov2"]])
def test_a_dataset_without_a_shard_opens_where_it_is_masked(tmp_path, inputs):
    """In the order of the whole one, also where only a modality that isn't trained on tells of the unit."""
    small = write_dataset(tmp_path / "one")
    recipe: dict[str, Any] = {"url": small.store.url, "inputs": inputs, "targets": inputs}

    def batch(**data: Any) -> tuple[OpenData, Batch]:
        found = opened(tmp_path, datasets={"a": recipe}, **data)
        return found, next(iter(Batches(found.mixture, 64)))

    _, whole = batch()
    path_of(small, small.token_path("dinov2", small.units[1])).unlink()
    with pytest.raises(RecipeError, match=r"one lacks the shards of dinov2 for 1 of 4 units .*`broken: skip`"):
        batch()
    data, masked = batch(broken="skip")
    assert any(note.startswith("a: the shards of dinov2 are missing for 4 of 16 samples") for note in data.notes)
    lacks = masked.skipped[:, masked.modalities.index("dinov2")]
    assert 0 < lacks.sum() < len(lacks)
    np.testing.assert_array_equal(masked.inputs.ids[~lacks], whole.inputs.ids[~lacks])
    assert masked.skipped.sum() == lacks.sum()


@pytest.mark.parametrize("broken", ["stop", "skip"])
def test_a_dataset_that_lacks_a_unit_of_which_nothing_tells_is_refused(tmp_path, broken):
    small = write_dataset(tmp_path / "one")
    for name, card in small.manifest.modalities.items():
        path = small.token_path if card.keeps_tokens else small.label_path
        path_of(small, path(name, small.units[2])).unlink()
    with pytest.raises(RecipeError, match="1 of 2 shards of its corpus are complete; either its run hasn't ended, or"):
        opened(tmp_path, datasets={"a": {"url": small.store.url}}, broken=broken)
