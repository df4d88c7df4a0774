"""History: every manifest, and in words what it changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_dataset import CARDS, SmallDataset, made_anew, pending, write_dataset
from tokenloom.pipeline.checks.history import compare, read_history
from tokenloom.pipeline.cli import app
from tokenloom.pipeline.dataset.manifest import DatasetError, publish
from tokenloom.pipeline.storage.store import Store
from typer.testing import CliRunner

BEGUN = "begun, from s3://photos/*.tar (2 shards)"


@pytest.fixture
def small(tmp_path) -> SmallDataset:
    return write_dataset(tmp_path / "dataset")


def test_the_first_manifest_begins_the_dataset(small):
    (chapter,) = read_history(small.store)
    assert (chapter.number, chapter.changes) == (1, [BEGUN, *(f"{name}: added" for name in CARDS)])


def test_a_replacement_is_told_from_beginning_to_end(small):
    renewed = made_anew(small, "dinov2", version=2)
    pending(small, renewed, "dinov2")
    publish(small.store, lambda now: renewed.manifest)
    _, begun, ended = read_history(small.store)
    assert (begun.number, begun.changes) == (2, ["dinov2: is being made anew"])
    assert (ended.number, ended.changes) == (3, ["dinov2: version: 1 -> 2"])
    assert begun.written <= ended.written
    assert compare(small.store, 1, 3) == ended.changes
    assert compare(small.store, 3, 1) == ["dinov2: version: 2 -> 1"]


def test_a_replacement_that_is_given_up_is_told(small):
    pending(small, made_anew(small, "dinov2", units=1, version=2), "dinov2")
    publish(small.store, lambda now: small.manifest)
    assert read_history(small.store)[-1].changes == ["dinov2: is no longer being made anew"]


def test_what_is_kept_what_is_taken_away_and_the_corpus_are_told(small):
    cards = {name: card for name, card in small.manifest.modalities.items() if name != "caption"}
    cards["dinov2"] = replace(cards["dinov2"], keeps_labels=True)
    corpus = replace(small.manifest.corpus, shards=3, bytes=300_000)
    publish(small.store, lambda now: replace(small.manifest, modalities=cards, corpus=corpus))
    assert compare(small.store, 1, 2) == [
        "the corpus: s3://photos/*.tar (2 shards, 200,000 bytes) -> s3://photos/*.tar (3 shards, 300,000 bytes)",
        "caption: taken away",
        "dinov2: labels are kept, too",
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({"tokens"}, {"labels"}, ["labels are kept", "tokens are no longer kept"]),
        ({"tokens"}, {"tokens", "labels"}, ["labels are kept, too"]),
        ({"tokens", "labels"}, {"labels"}, ["tokens are no longer kept"]),
        ({"labels"}, {"tokens"}, ["tokens are kept", "labels are no longer kept"]),
    ],
)
def test_what_is_kept_instead_is_not_kept_too(small, old, new, told):
    for kept in (old, new):
        card = replace(CARDS["dinov2"], keeps_tokens="tokens" in kept, keeps_labels="labels" in kept)
        card = replace(card, tokens=small.manifest.modalities["dinov2"].tokens)
        cards = {**small.manifest.modalities, "dinov2": card}
        publish(small.store, lambda now, cards=cards: replace(small.manifest, modalities=cards))
    assert read_history(small.store)[-1].changes == [f"dinov2: {line}" for line in told]


def test_a_tokenizer_that_is_there_now_is_told(small):
    card = small.manifest.modalities["dinov2"]
    assert card.tokens is not None
    waiting = replace(card, tokens=replace(card.tokens, spec=None, files={}))
    publish(
        small.store, lambda now: replace(small.manifest, modalities={**small.manifest.modalities, "dinov2": waiting})
    )
    publish(small.store, lambda now: small.manifest)
    assert read_history(small.store)[-1].changes == [f"dinov2: its tokenizer is there ({card.tokenizer_digest})"]
    assert compare(small.store, 3, 2) == ["dinov2: its tokenizer isn't there yet"]


def test_a_number_that_there_is_not_is_named(small):
    with pytest.raises(DatasetError, match=r"00000007\.json.*`tokenloom history .*` lists the manifests"):
        compare(small.store, 1, 7)


def test_there_is_none_where_there_is_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match="no dataset here"):
        read_history(Store(tmp_path))


def test_the_command_prints_all_or_the_difference_of_two(small):
    publish(small.store, lambda now: made_anew(small, "dinov2", version=2).manifest)

    def run(*arguments: str) -> list[str]:
        result = CliRunner().invoke(app, ["history", small.store.url, *arguments], catch_exceptions=False)
        return [line.strip() for line in result.stdout.splitlines()]

    lines = run()
    assert lines[1] == BEGUN
    assert lines[-2].startswith("2  ")
    assert lines[-2].endswith(" ago")
    assert lines[-1] == "dinov2: version: 1 -> 2"
    assert run("1", "2") == ["dinov2: version: 1 -> 2"]
    assert run("2", "2") == ["nothing differs"]
