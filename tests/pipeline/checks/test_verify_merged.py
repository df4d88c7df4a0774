"""Verify and gc where units lie in merged shards: every flipped bit, whatever is missing, and a list that was lost."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest
from in_process import said, without_ray
from small_dataset import SmallDataset, write_dataset
from tokenloom.pipeline.checks.garbage import find_garbage, remove_garbage
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.compact import compact


@pytest.fixture
def small(tmp_path) -> SmallDataset:
    """Of which nothing is left but merged shards."""
    written = write_dataset(tmp_path / "set")
    with without_ray():
        compact(written.store.url)
    remove_garbage(written.store, timedelta(seconds=-2))
    assert verify(written.store, deep=True).faults == []
    return written


def merged(small: SmallDataset, modality: str, extension: str) -> str:
    (found,) = Path(small.store.url, modality).glob(f"*/merged-*.{extension}")
    return str(found.relative_to(small.store.url))


@pytest.mark.parametrize(("modality", "extension"), [("dinov2", "parquet"), ("canny_edge", "tar")])
def test_any_flipped_bit_of_a_merged_shard_is_found_and_told_once(modality, extension, small):
    path, rng = merged(small, modality, extension), random.Random(0)
    data = small.store.read(path)
    for _ in range(15):
        broken, at = bytearray(data), rng.randrange(8 * len(data))
        broken[at // 8] ^= 1 << at % 8
        small.store.replace(path, bytes(broken))
        assert [(fault.problem, fault.object) for fault in verify(small.store).faults] == [("damaged", path)]


def test_a_list_that_is_not_as_it_was_written_is_told_by_all_that_need_it(small):
    (path,) = (str(p.relative_to(small.store.url)) for p in Path(small.store.url, "dinov2").glob("*/merges/*.json"))
    data = small.store.read(path)
    small.store.replace(path, data.replace(b"merged-", b"merged_", 1))
    told = said("verify", small.store.url, code=1)
    assert path in told
    assert "put back a copy of it" in told
    for command in ("status", "compact", "gc"):
        assert f"{path}: its bytes aren't those that were written" in said(command, small.store.url, code=2)
    small.store.replace(path, data)
    assert verify(small.store).faults == []


def test_a_merged_shard_that_is_missing_is_missed(small):
    path = merged(small, "dinov2", "parquet")
    small.store.delete(path)
    faults = verify(small.store).faults
    assert {fault.problem for fault in faults} == {"unfinished"}
    assert "none of its 4 units is made yet" in faults[0].what


def test_what_a_lost_list_alone_told_of_is_not_deleted(small):
    """Its merged shards look as if nobody needed them."""
    for path in Path(small.store.url).glob("*/*/merges/*.json"):
        path.unlink()
    faults = verify(small.store).faults
    assert {fault.object for fault in faults if "merged-" in fault.object} == {
        merged(small, name, "parquet") for name in ("caption", "color_palette", "dinov2")
    } | {merged(small, name, "tar") for name in ("caption", "color_palette", "canny_edge")}
    assert [one.path for one in find_garbage(small.store, timedelta(seconds=-2)) if "merged-" in one.path] == []


def test_a_shard_that_is_broken_is_left_with_its_neighbours_and_named(tmp_path):
    small = write_dataset(tmp_path / "set")
    path = small.token_path("dinov2", small.units[1])
    data = small.store.read(path)
    small.store.replace(path, data[:-40])
    told = said("compact", small.store.url, code=2)
    assert f"{small.store.url}/{path}: " in told
    assert "1 shard can't be merged, as told above: `tokenloom verify" in told
    assert list(Path(small.store.url, "dinov2").glob("*/merged-*")) == []
    assert [(fault.problem, fault.object) for fault in verify(small.store).faults] == [("damaged", path)]
    small.store.replace(path, data)
    said("compact", small.store.url)
    assert len(list(Path(small.store.url, "dinov2").glob("*/merged-*"))) == 1
    assert "nothing to merge" in said("compact", small.store.url)
    assert verify(small.store, deep=True).faults == []
