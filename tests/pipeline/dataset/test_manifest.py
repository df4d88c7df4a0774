"""Manifests: created once, the highest number wins, and who loses the race for one reconciles with the winner."""

from __future__ import annotations

import json
from dataclasses import replace
from threading import Barrier, Thread

import pytest
from small_dataset import CARDS, SmallDataset, made_anew, write_dataset
from tokenloom.pipeline.dataset.layout import manifest_path
from tokenloom.pipeline.dataset.manifest import (
    DatasetError,
    Manifest,
    manifest_numbers,
    publish,
    read_manifest,
    require_manifest,
)
from tokenloom.pipeline.storage.store import Store
from weaving import digests


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Manifest:
    return write_dataset(tmp_path_factory.mktemp("small")).manifest


def with_views(manifest: Manifest | None, **views) -> Manifest:
    assert manifest is not None
    return replace(manifest, views={**manifest.views, **views})


# --- what is written --------------------------------------------------------------------------------------------------


def test_a_manifest_is_read_as_it_was_written(first):
    pending = replace(first, pending={"dinov2": replace(first.modalities["dinov2"], version=2)})
    for manifest in (first, pending):
        assert Manifest.from_bytes(manifest.to_bytes(), "here") == manifest
    assert [card.version for card in pending.cards_of("dinov2")] == [1, 2]


def test_a_manifest_tells_where_the_shards_lie(tmp_path):
    """So that people find them without tokenloom."""
    small = write_dataset(tmp_path)
    told = json.loads(small.store.read(manifest_path(1)))["modalities"]
    for name, card in CARDS.items():
        generations = told[name]["generations"]
        for what, kept in (("labels", card.keeps_labels), ("tokens", card.keeps_tokens)):
            assert (tmp_path / name / f"{what}-{generations.get(what)}").is_dir() == kept


def test_a_manifest_holds_no_clock_and_no_host(first):
    data = first.to_bytes()
    settings = ["corpus", "seed", "views", "units", "modalities", "pending"]
    assert list(json.loads(data)) == ["format", "version", *settings, "checksum"]
    assert Manifest.from_bytes(data, "here").to_bytes() == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a readable manifest"),
        (b"[]", "not a readable manifest"),
        (b'{"format": "tokenloom", "version": 1}', "version 1; this tokenloom reads 'tokenloom' version 2"),
        (b'{"format": "other", "version": 2}', "format 'other'"),
        (b'{"format": "tokenloom", "version": 2, "seed": 0}', "its checksum doesn't match"),
    ],
)
def test_what_is_no_manifest_is_named(data, message):
    with pytest.raises(DatasetError, match=f"here: .*{message}"):
        Manifest.from_bytes(data, "here")


def test_a_dataset_of_a_format_before_the_first_release_is_named(tmp_path):
    store = Store(tmp_path)
    assert read_manifest(store) is None
    with pytest.raises(DatasetError, match="no dataset here"):
        require_manifest(store)
    store.create("dataset.json", b"{}")
    with pytest.raises(DatasetError, match="a format before the first release: make it anew"):
        require_manifest(store)


# --- which one holds --------------------------------------------------------------------------------------------------


def test_the_highest_number_wins_and_nothing_is_overwritten(place, first):
    publish(place, lambda now: first)
    before = digests_of(place)
    for size in range(2, 12):
        publish(place, lambda now, size=size: with_views(now, size=size))
    assert manifest_numbers(place) == list(range(1, 12))
    assert require_manifest(place).views["size"] == 11
    assert before.items() <= digests_of(place).items()


def digests_of(store: Store) -> dict[str, bytes]:
    return {entry.name: store.read(entry.name) for entry in store.list()}


def test_where_nothing_changes_nothing_is_written(tmp_path, first):
    store = Store(tmp_path)
    publish(store, lambda now: first)
    before = digests(tmp_path)
    assert publish(store, lambda now: first) == first
    assert publish(store, lambda now: now or first) == first
    assert digests(tmp_path) == before


def test_other_files_among_the_manifests_count_for_nothing(place, first):
    publish(place, lambda now: first)
    for name in ("notes.txt", "2.json", "00000002.json.bak", "below/00000002.json", "00000002.JSON"):
        place.create(f"manifests/{name}", b"?")
    assert manifest_numbers(place) == [1]
    assert require_manifest(place) == first


def test_who_loses_the_race_reconciles_with_the_winner_and_takes_the_next_number(place, first):
    publish(place, lambda now: first)
    seen = []

    def change(now: Manifest | None) -> Manifest:
        seen.append(now)
        if len(seen) == 1:
            publish(place, lambda theirs: with_views(theirs, size=96))
        return with_views(now, count=4)

    last = publish(place, change)
    assert seen == [first, with_views(first, size=96)]
    assert manifest_numbers(place) == [1, 2, 3]
    assert last == require_manifest(place) == with_views(first, size=96, count=4)


def test_who_wants_what_the_winner_wrote_writes_nothing(place, first):
    def change(now: Manifest | None) -> Manifest:
        if now is None:
            publish(place, lambda theirs: first)
        return first

    assert publish(place, change) == first
    assert manifest_numbers(place) == [1]


def test_what_a_change_refuses_leaves_the_dataset_as_it_was(place, first):
    publish(place, lambda now: first)

    def refuse(now: Manifest | None) -> Manifest:
        raise DatasetError("it was made otherwise")

    with pytest.raises(DatasetError, match="it was made otherwise"):
        publish(place, refuse)
    assert manifest_numbers(place) == [1]


# fsspec's memory looks whether there is an object, and then writes one: of threads two may be first.
@pytest.mark.parametrize("place", ["local", pytest.param("s3", marks=pytest.mark.s3)], indirect=True)
def test_of_many_at_once_none_is_lost(place, first):
    publish(place, lambda now: with_views(first, names=[]))
    begin = Barrier(8)

    def add(name: int) -> None:
        begin.wait()
        publish(place, lambda now: with_views(now, names=sorted([*(now or first).views["names"], name])))

    threads = [Thread(target=add, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert require_manifest(place).views["names"] == list(range(8))
    assert manifest_numbers(place) == list(range(1, 10))


# --- generations ------------------------------------------------------------------------------------------------------


def test_labels_and_tokens_have_generations_of_all_that_determines_them(first):
    """What changes the labels changes the tokens, too; another tokenizer or vocabulary changes the tokens alone."""
    card = first.modalities["caption"]
    tokens = card.tokens
    assert tokens is not None
    assert tokens.vocabulary is not None
    assert card.weights is None
    of_labels = [
        replace(card, version=2),
        replace(card, labeler="other"),
        replace(card, params={"a": 1}),
        replace(card, requires={"rgb": "0" * 16}),
        replace(card, common={"seed": 1}),
        replace(card, weights=first.modalities["dinov2"].weights),
    ]
    of_tokens = [
        replace(card, tokens=replace(tokens, params={"max_length": 8})),
        replace(card, tokens=replace(tokens, version=2)),
        replace(card, tokens=replace(tokens, files={"config.json": "0" * 64})),
        replace(card, tokens=replace(tokens, vocabulary=replace(tokens.vocabulary, digest="0" * 64))),
    ]
    of_neither = [
        replace(card, licence="MIT"),
        replace(card, keeps_labels=False),
        replace(card, tokens=replace(tokens, fit_units=7)),
    ]
    assert len({one.labels_generation for one in [card, *of_labels]}) == 1 + len(of_labels)
    assert {one.labels_generation for one in of_tokens + of_neither} == {card.labels_generation}
    assert len({one.tokens_generation for one in [card, *of_labels, *of_tokens]}) == 1 + len(of_labels + of_tokens)
    assert {one.tokens_generation for one in of_neither} == {card.tokens_generation}


def test_where_weights_lie_makes_no_generation(first):
    card = first.modalities["dinov2"]
    assert card.weights is not None
    elsewhere = replace(card, weights=replace(card.weights, source="s3://copies/model"))
    assert (elsewhere.labels_generation, elsewhere.asked) == (card.labels_generation, card.asked)
    other = replace(card, weights=replace(card.weights, sha256="0" * 64))
    assert other.labels_generation != card.labels_generation


def test_what_is_made_otherwise_lies_beside_what_was_there(tmp_path):
    small: SmallDataset = write_dataset(tmp_path)
    before = digests(tmp_path)
    made_anew(small, "color_palette", version=2)
    assert before.items() <= digests(tmp_path).items()
