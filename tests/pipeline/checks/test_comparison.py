"""Two datasets beside each other: what is the same of them, and how far apart the rest is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import small_dataset
from in_process import said
from small_dataset import CARDS, SmallDataset, label_of, made_anew, repair_palette, rewrite_tokens, write_dataset
from tokenloom.labelers.contract.kinds import FeatureMap, Image, Vector
from tokenloom.pipeline.checks.comparison import Compared, compare_datasets
from tokenloom.pipeline.checks.distances import Distances
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.layout import tokenizer_folder
from tokenloom.pipeline.dataset.manifest import DatasetError, publish


@pytest.fixture
def one(tmp_path) -> SmallDataset:
    return write_dataset(tmp_path / "one")


@pytest.fixture
def other(tmp_path) -> SmallDataset:
    return write_dataset(tmp_path / "other")


def compared(one: SmallDataset, other: SmallDataset, samples: int = 1000) -> dict[str, Compared]:
    first, second = open_dataset(one.store.url), open_dataset(other.store.url)
    return {found.modality: found for found in compare_datasets(first, second, list(CARDS), samples)}


def test_copies_are_the_same_in_all(one, other):
    found = compared(one, other)
    assert {name: (each.changes, each.samples, each.found, each.only) for name, each in found.items()} == {
        name: ([], 16, 16, (0, 0)) for name in CARDS
    }
    assert {name: (each.labels, each.same) for name, each in found.items() if each.tokens} == {
        "caption": (24, 24),  # of every fourth sample there is none
        "color_palette": (31, 31),  # one failed
        "dinov2": (32, 32),
    }
    assert (found["canny_edge"].tokens, found["canny_edge"].labels) == (False, 16)
    assert found["canny_edge"].distances == {"identical": 1.0, "difference": 0.0, "psnr": 100.0, "edge_f1": 1.0}
    assert all(each.same_ids == each.ids for each in found.values())


def test_what_another_version_made_is_measured(one, other, monkeypatch):
    def brighter(name: str, key: str, view: int) -> object:
        label = label_of(name, key, view)
        return np.clip(np.asarray(label) + 16.0, 0, 255).astype(np.uint8) if name == "canny_edge" else label

    monkeypatch.setattr(small_dataset, "label_of", brighter)
    renewed = made_anew(other, "canny_edge", version=2)
    publish(other.store, lambda now: renewed.manifest)
    found = compared(one, other)["canny_edge"]
    assert found.changes == ["version: 1 -> 2"]
    truth = [np.asarray(label_of("canny_edge", key, 0), float) for keys in one.keys.values() for key in keys]
    errors = [np.mean(np.square(np.clip(label + 16, 0, 255) - label)) for label in truth]
    assert found.distances["psnr"] == pytest.approx(np.mean([10 * np.log10(255**2 / error) for error in errors]))
    assert compared(one, other)["dinov2"].changes == []


def test_tokens_that_differ_are_counted_and_decoded(one, other):
    def second_is_another(tokens: list[np.ndarray]) -> list[np.ndarray]:
        return [tokens[0], (tokens[1] + 1) % 16, *tokens[2:]]

    rewrite_tokens(other, "dinov2", other.units[1], change=second_is_another)
    found = compared(one, other)["dinov2"]
    assert (found.labels, found.same, found.ids, found.same_ids) == (32, 31, 32 * 9, 31 * 9)
    assert found.decoded
    assert 0 < found.distances["cosine"] < 1


def test_labels_are_counted_as_their_tokens_are(one, other):
    """Of texts, which are one label of a sample and tokens of each of its views."""

    def first_is_another(tokens: list[np.ndarray | None]) -> list[np.ndarray | None]:
        at = next(index for index, ids in enumerate(tokens) if ids is not None)
        return [ids[:-1] if index == at and ids is not None else ids for index, ids in enumerate(tokens)]

    rewrite_tokens(other, "caption", other.units[1], change=first_is_another)
    found = compared(one, other)["caption"]
    assert (found.samples, found.found, found.labels, found.same, found.only) == (16, 16, 24, 23, (0, 0))
    assert found.distances == {"identical": 1.0, "exact": 1.0, "word_f1": 1.0}
    assert not found.decoded


def test_labels_that_are_kept_are_compared_whatever_their_tokens_say(one, other, monkeypatch):
    """Which for texts know no case."""

    def loud(name: str, key: str, view: int) -> object:
        label = label_of(name, key, view)
        return label.upper() if isinstance(label, str) else label

    monkeypatch.setattr(small_dataset, "label_of", loud)
    renewed = made_anew(other, "caption", version=2)
    publish(other.store, lambda now: renewed.manifest)
    found = compared(one, other)["caption"]
    assert (found.tokens, found.same, found.labels) == (True, 24, 24)
    assert found.distances == {"identical": 0.0, "exact": 1.0, "word_f1": 1.0}


@pytest.mark.parametrize(
    ("kind", "measure", "aligned"),
    [
        (Vector(3), "cosine", 1.0),
        (FeatureMap(3, 2, 2), "cosine", 1.0),
        (Image(1, "float32", "intensity", unit="m"), "abs_rel", 0.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_scale_is_seen(kind, measure, aligned):
    shape = {Vector: (3,), FeatureMap: (3, 2, 2), Image: (4, 5)}[type(kind)]
    label = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)
    distances = Distances(kind)
    distances.add(label, 2 * label)
    distances.add(label, label)
    found = distances.means()
    assert found[measure] == pytest.approx(aligned, abs=1e-3)
    assert (found["identical"], found["difference"]) == (0.5, pytest.approx(0.5))


def test_why_ids_are_not_compared_is_told(one, other, tmp_path):
    """Here the same tokenizer was fitted to other samples, so that its files are others."""
    card = other.manifest.modalities["dinov2"]
    assert card.tokens
    files = dict.fromkeys(card.tokens.files, "0" * 64)
    fitted = replace(card, tokens=replace(card.tokens, files=files))
    for name in files:
        data = other.store.read(f"{tokenizer_folder(card.tokenizer_digest)}/{name}")
        other.store.create(f"{tokenizer_folder(fitted.tokenizer_digest)}/{name}", data)
    cards = {**other.manifest.modalities, "dinov2": fitted}
    publish(other.store, lambda now: replace(other.manifest, modalities=cards))
    told = said("diff", tmp_path / "one", tmp_path / "other", "--modality", "dinov2")
    assert "dinov2: the tokenizers were fitted to different samples, so the same ids mean something else" in told


def test_what_one_alone_has_is_counted(one, other):
    repair_palette(other, other.units[0])
    found = compared(one, other)["color_palette"]
    assert (found.labels, found.only) == (31, (0, 1))
    assert compared(other, one)["color_palette"].only == (1, 0)


@pytest.mark.parametrize("shape", [{"samples": 3}, {"samples": 6}, {"shards": 1}, {"units": 3}])
def test_samples_are_found_by_their_keys(one, tmp_path, shape):
    """Where units are others, and one dataset has more samples than the other."""
    other = write_dataset(tmp_path / "other", **shape)
    found = compared(one, other)["dinov2"]
    keys = [{key for keys in each.keys.values() for key in keys} for each in (one, other)]
    assert (found.samples, found.found, found.labels) == (16, len(keys[0] & keys[1]), 2 * len(keys[0] & keys[1]))
    assert found.found > 0
    assert found.distances.get("cosine", 1) > 0.5


def test_ids_of_another_tokenizer_are_not_compared_but_what_they_decode_to(one, other):
    card = other.manifest.modalities["dinov2"]
    assert card.tokens
    tokens = replace(card.tokens, params={**card.tokens.params, "iterations": 9})
    for name in tokens.files:
        data = other.store.read(f"{tokenizer_folder(card.tokenizer_digest)}/{name}")
        other.store.create(f"{tokenizer_folder(replace(card, tokens=tokens).tokenizer_digest)}/{name}", data)
    renewed = made_anew(other, "dinov2", tokens=tokens)
    publish(other.store, lambda now: renewed.manifest)
    found = compared(one, other)["dinov2"]
    assert (found.tokens, found.same, found.decoded) == (False, 0, True)
    assert found.changes == ["tokenizer.params.iterations: 10 -> 9"]
    assert found.ids_apart == "the tokenizers are two"
    assert found.distances["cosine"] == pytest.approx(1)


@pytest.mark.parametrize("samples", [1, 4, 5, 16])
def test_so_many_samples_are_read_as_asked_for(one, other, samples):
    assert compared(one, other, samples)["caption"].samples == -(-samples // 4) * 4


def test_a_broken_shard_is_named(one, other):
    path = other.token_path("caption", other.units[0])
    other.store.replace(path, b"PAR1")
    with pytest.raises(DatasetError, match=path):
        compared(one, other)


def test_the_command(one, other, tmp_path):
    renewed = made_anew(other, "canny_edge", version=2)
    cards = {name: card for name, card in renewed.manifest.modalities.items() if name != "caption"}
    publish(other.store, lambda now: replace(renewed.manifest, modalities=cards))
    repair_palette(other, other.units[0])
    told = said("diff", tmp_path / "one", tmp_path / "other")
    rows = {line.split()[0]: line.split() for line in told.splitlines()[1:4]}
    assert " ".join(rows["dinov2"]) == "dinov2 alike 32 100.0 % 100.0 % nothing (decoded from tokens)"
    assert rows["canny_edge"][1:5] == ["otherwise", "16", "-", "-"]
    assert told.splitlines()[4:] == [
        "",
        "color_palette: 0 labels only the first has, 1 only the second",
        "canny_edge: version: 1 -> 2",
        f"only in {tmp_path / 'one'}: caption",
    ]
    told = json.loads(said("diff", tmp_path / "one", tmp_path / "other", "--json"))
    assert told["only"] == {"first": ["caption"], "second": []}
    assert [one["modality"] for one in told["modalities"]] == ["color_palette", "dinov2", "canny_edge"]


def test_datasets_with_nothing_in_common(one, other, tmp_path):
    for dataset, name in ((one, "caption"), (other, "dinov2")):
        made = replace(dataset.manifest, modalities={name: dataset.manifest.modalities[name]})
        publish(dataset.store, lambda now, made=made: made)
    assert said("diff", tmp_path / "one", tmp_path / "other").splitlines() == [
        "they have no modality in common",
        f"only in {tmp_path / 'one'}: caption",
        f"only in {tmp_path / 'other'}: dinov2",
    ]


def test_a_modality_that_one_lacks_is_refused(one, other, tmp_path):
    cards = {"dinov2": other.manifest.modalities["dinov2"]}
    publish(other.store, lambda now: replace(other.manifest, modalities=cards))
    words = ("diff", tmp_path / "one", tmp_path / "other", "--modality")
    assert f"{tmp_path / 'other'}" in said(*words, "caption", code=2)
    assert "dinov2" in said(*words, "dinov2")
