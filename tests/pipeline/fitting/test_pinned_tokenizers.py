"""Pinned tokenizers: what a manifest names under what was asked for is what everybody gets who asks for the same."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest
from small_dataset import CARDS, SmallDataset, label_of, made_anew, pending, write_dataset
from tokenloom.pipeline.dataset.layout import sample_path, tokenizer_folder
from tokenloom.pipeline.dataset.manifest import publish
from tokenloom.pipeline.dataset.shards import RowKeys, ShardMeta, write_labels
from tokenloom.pipeline.fitting.fit import provide_tokenizer
from tokenloom.pipeline.fitting.listener import FitListener
from weaving import digests


@pytest.fixture
def small(tmp_path) -> SmallDataset:
    return write_dataset(tmp_path)


def put_aside(small: SmallDataset, sample: str, first: int = 0) -> None:
    """Labels of dinov2 to fit a tokenizer to."""
    card, unit = CARDS["dinov2"], small.units[0]
    keys = [f"sample/{index}" for index in range(first, first + 8)]
    labels = [card.label_kind.encode(label_of("dinov2", key, 0)) for key in keys]
    meta = ShardMeta(unit.name, "dinov2", card.labels_generation)
    data = write_labels(RowKeys.of(keys, 1), labels, card.label_kind.extension, meta)
    small.store.create(sample_path("dinov2", sample, unit), data)


def test_whoever_comes_later_takes_what_is_pinned_whatever_the_sample(small):
    """As with a corpus that has grown, or where the first has cleared its sample away."""
    before = digests(small.store.url)
    assert provide_tokenizer(small.store, "dinov2", CARDS["dinov2"], 0, "gone") == small.manifest.modalities["dinov2"]
    assert digests(small.store.url) == before
    put_aside(small, "grown", first=100)
    assert provide_tokenizer(small.store, "dinov2", CARDS["dinov2"], 7, "grown") == small.manifest.modalities["dinov2"]


def test_a_tokenizer_that_is_pinned_for_a_pending_modality_is_taken_too(small):
    renewed = made_anew(small, "dinov2", units=0, version=2)
    pending(small, renewed, "dinov2")
    wanted = replace(CARDS["dinov2"], version=2)
    assert provide_tokenizer(small.store, "dinov2", wanted, 0, "gone") == renewed.manifest.modalities["dinov2"]


def test_what_was_asked_for_otherwise_is_fitted_beside_it(small):
    """And under its digest, where nothing is overwritten."""
    before = digests(small.store.url)
    asked = CARDS["dinov2"]
    assert asked.tokens is not None
    other = replace(asked, tokens=replace(asked.tokens, params={**asked.tokens.params, "size": 8}))
    with pytest.raises(ValueError, match="the sample has no vector"):
        provide_tokenizer(small.store, "dinov2", other, 0, "gone")
    put_aside(small, "mine")
    card = provide_tokenizer(small.store, "dinov2", other, 0, "mine")
    assert card.tokenizer_digest != small.manifest.modalities["dinov2"].tokenizer_digest
    assert card.asked == other.asked
    after = digests(small.store.url)
    assert before.items() <= after.items()
    assert card.tokens is not None
    assert {f"{tokenizer_folder(card.tokenizer_digest)}/{name}" for name in card.tokens.files} <= after.keys()


def test_the_rounds_of_a_fit_are_told(small):
    class Heard(FitListener):
        rounds: ClassVar[list[tuple[str, int, int]]] = []

        def fitting(self, modality: str, done: int, of: int) -> None:
            self.rounds.append((modality, done, of))

    publish(small.store, lambda now: replace(small.manifest, modalities={}))
    put_aside(small, "mine")
    provide_tokenizer(small.store, "dinov2", CARDS["dinov2"], 0, "mine", listener=Heard())
    assert Heard.rounds[:2] == [("dinov2", 0, 13), ("dinov2", 1, 13)]


def test_the_same_sample_gives_the_same_tokenizer(small, tmp_path):
    store = small.store
    publish(store, lambda now: replace(small.manifest, modalities={"caption": small.manifest.modalities["caption"]}))
    put_aside(small, "one")
    put_aside(small, "two")
    one, two = (provide_tokenizer(store, "dinov2", CARDS["dinov2"], 0, sample) for sample in ("one", "two"))
    assert one == two
    assert one.tokens_generation == small.manifest.modalities["dinov2"].tokens_generation
