"""Datasets that have grown since a state was saved: refused, or taken from their next epoch on."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_dataset import SmallDataset, write_dataset
from tokenloom.pipeline.corpus.taken import Listing
from tokenloom.pipeline.dataset.layout import manifest_path
from tokenloom.pipeline.dataset.listings import store_listing
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.training.data.loader import TrainingBatches
from tokenloom.training.data.order import Era, Order, Source
from training_recipes import content, two_datasets, written


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2))
def test_each_epoch_has_the_units_of_its_era(seed: int, first: int, more: int, repeats: int):
    counts = [3, 5, 2, 4, 1, 6]
    eras = [Era(0, 2), Era(first, 4), Era(first + more, 6)]
    order = Order([Source("a", counts, 1.0, repeats, 1, eras)], seed, 2)
    samples = [
        sum(counts[: 2 if e < first else 4 if e < first + more else 6]) * repeats for e in range(first + more + 2)
    ]
    ((_, places),) = order.places(np.arange(sum(samples)))
    for epoch, count in enumerate(samples):
        here = places.epoch == epoch
        assert here.sum() == count
        came = Counter(zip(places.unit[here].tolist(), places.row[here].tolist(), strict=True))
        assert set(came.values()) == {repeats}
        assert len(came) == count // repeats
        start = sum(samples[:epoch])
        assert order.next_epoch(0, start) == epoch
        assert order.next_epoch(0, start + 1) == epoch + 1


def grow(small: SmallDataset, folder: Path) -> None:
    """A third shard of the corpus, with all that is made of it."""
    larger = write_dataset(folder / "larger", shards=3)
    for entry in larger.store.list():
        if not entry.name.startswith(("manifests/", "corpus/")):
            small.store.create(entry.name, larger.store.read(entry.name))
    listing = Listing("tar", {"photos-00002.tar": 100_000})
    store_listing(small.store, listing)
    corpus = replace(small.manifest.corpus, shards=3, listings=[*small.manifest.corpus.listings, listing.digest])
    small.store.create(manifest_path(2), replace(small.manifest, corpus=corpus).to_bytes())


def keys_by_epoch(data: Any, positions: np.ndarray) -> dict[int, Counter[tuple[str, int]]]:
    """The samples of dataset a that come at these positions."""
    found: dict[int, Counter[tuple[str, int]]] = {}
    for source, places in data.mixture.places(positions):
        if source == 0:
            names = [data.datasets[0].units[unit].name for unit in places.unit]
            for epoch, name, row in zip(places.epoch.tolist(), names, places.row.tolist(), strict=True):
                found.setdefault(epoch, Counter())[name, row] += 1
    return found


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_what_is_new_comes_from_the_next_epoch_on(tmp_path, steps):
    small, _ = two_datasets(tmp_path)
    mine = written(tmp_path / "train.yaml", content(tmp_path, grown="next_epoch"))
    before = TrainingBatches(mine)
    stream = iter(before)
    state = [before.state_after(next(stream)) for _ in range(steps)][-1]
    grow(small, tmp_path)
    after = TrainingBatches(mine)
    after.load_state_dict(json.loads(json.dumps(state)))
    position = state["position"]
    first = int(next(iter(after))["positions"][0])
    assert first == position
    old = keys_by_epoch(before.data, np.arange(position))
    new = keys_by_epoch(after.data, np.arange(position, 300))
    together = {epoch: old.get(epoch, Counter()) + new.get(epoch, Counter()) for epoch in {*old, *new}}
    sizes = [len(together[epoch]) for epoch in sorted(together)][:-1]
    turning = sizes.index(24)
    assert sizes == [16] * turning + [24] * (len(sizes) - turning)
    assert turning == after.state_dict()["manifests"]["a"][1][0]
    assert all(set(together[epoch].values()) == {1} for epoch in sorted(together)[:-1])
    # That state is good for whoever goes on, also where growing is refused: nothing has come since.
    refusing = TrainingBatches(written(tmp_path / "train.yaml", content(tmp_path)))
    refusing.load_state_dict(after.state_dict())
    assert refusing.state_dict() == after.state_dict()
    np.testing.assert_array_equal(next(iter(refusing))["inputs"]["ids"], next(iter(after))["inputs"]["ids"])


def test_a_dataset_that_has_grown_is_refused(tmp_path):
    small, _ = two_datasets(tmp_path)
    mine = written(tmp_path / "train.yaml", content(tmp_path))
    state = TrainingBatches(mine).state_dict()
    grow(small, tmp_path)
    with pytest.raises(DatasetError, match=r"a \(\S+one\) has grown by 8 samples since the state was saved: `grown"):
        TrainingBatches(mine).load_state_dict(state)


def test_a_dataset_that_has_lost_something_is_of_another_order(tmp_path):
    small, _ = two_datasets(tmp_path)
    mine = written(tmp_path / "train.yaml", content(tmp_path, grown="next_epoch"))
    state = TrainingBatches(mine).state_dict()
    shard = small.units[0].shard
    corpus = replace(small.manifest.corpus, shards=1, retired=[shard])
    small.store.create(manifest_path(2), replace(small.manifest, corpus=corpus).to_bytes())
    with pytest.raises(DatasetError, match="the state is of another recipe: datasets, their units"):
        TrainingBatches(mine).load_state_dict(state)
