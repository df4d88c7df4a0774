"""Verify within units: sound bits that contradict each other, the manifest or the quarantine."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from small_dataset import SmallDataset, path_of, rewrite_tokens, write_dataset
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.dataset.layout import ledger_path
from tokenloom.pipeline.dataset.ledger import Failure, digest_of, read_ledger, write_ledger
from tokenloom.pipeline.dataset.shards import RowKeys, ShardMeta, read_labels, write_labels
from tokenloom.pipeline.storage.store import Store


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> SmallDataset:
    return write_dataset(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def small(pristine, tmp_path) -> SmallDataset:
    """A copy to damage."""
    shutil.copytree(pristine.store.url, tmp_path / "dataset")
    return replace(pristine, store=Store(tmp_path / "dataset"))


def findings(small: SmallDataset, deep: bool = False) -> set[tuple[str, str]]:
    return {(fault.problem, fault.object) for fault in verify(small.store, deep).faults}


# --- sealed shards that contradict each other -------------------------------------------------------------------------


def test_reordered_rows_are_found(small):
    unit = small.units[1]
    rewrite_tokens(small, "dinov2", unit, order=[0, 2, 1, 3])
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("contradiction", small.token_path("dinov2", unit))
    key = small.keys[unit]
    assert f"sample 1 is {key[2]!r} here and {key[1]!r} there" in fault.what


def test_rows_that_are_not_those_of_the_seal_are_found(small):
    """As an edit of the labels' keys would leave them, were it sealed again without telling."""
    unit = small.units[1]
    path = small.label_path("caption", unit)
    shard = read_labels(small.store.read(path))

    class Forged(ShardMeta):
        def pairs(self, keys, views):
            return super().pairs(shard.rows.keys, views)

    keys = ["someone/else", *shard.rows.keys[1:]]
    meta = Forged(**vars(shard.meta))
    small.store.replace(path, write_labels(RowKeys(keys, shard.rows.views), shard.labels, "txt", meta))
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("contradiction", path)
    assert "sealed" in fault.what


def test_a_dropped_sample_is_found(small):
    unit = small.units[1]
    rewrite_tokens(small, "dinov2", unit, order=[0, 1, 2])
    (fault,) = verify(small.store).faults
    assert fault.object == small.token_path("dinov2", unit)
    assert "it holds 3 samples" in fault.what


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda tokens: [ids + 60_000 for ids in tokens], "token id 6"),
        (lambda tokens: [ids[:-1] for ids in tokens], "8 tokens where the manifest says 9"),
        (lambda tokens: [ids.astype(np.uint32) for ids in tokens], "tokens are uint32, not uint16"),
    ],
    ids=["range", "length", "dtype"],
)
def test_tokens_that_are_not_what_the_manifest_says_are_found(small, change, what):
    card = small.manifest.modalities["dinov2"].tokens
    assert card is not None
    assert card.spec is not None
    spec = card.spec
    if "uint32" in what:
        spec = replace(spec, vocabulary=70_000)
    spec = replace(spec, length=None)
    rewrite_tokens(small, "dinov2", small.units[1], change=change, spec=spec)
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("contradiction", small.token_path("dinov2", small.units[1]))
    assert what in fault.what
    assert repr(small.keys[small.units[1]][0]) in fault.what


def test_labels_are_decoded_only_when_asked(small):
    unit = small.units[1]
    path = small.label_path("canny_edge", unit)
    shard = read_labels(small.store.read(path))
    labels = [*shard.labels[:2], b"no PNG", *shard.labels[3:]]
    small.store.replace(path, write_labels(shard.rows, labels, "png", shard.meta))
    assert findings(small) == set()
    (fault,) = verify(small.store, deep=True).faults
    assert (fault.problem, fault.object) == ("contradiction", path)
    assert repr(small.keys[unit][2]) in fault.what


# --- quarantine -------------------------------------------------------------------------------------------------------


def relabel_ledger(small: SmallDataset, failures: list[Failure]) -> set[str]:
    """Gives the first unit's palette other ledgers, and shards that refer to them; their paths."""
    unit, name = small.units[0], "color_palette"
    data, card = write_ledger(failures), small.manifest.modalities[name]
    digest = digest_of(data)
    rewrite_tokens(small, name, unit, ledger=digest)
    shard = read_labels(small.store.read(small.label_path(name, unit)))
    meta = replace(shard.meta, ledger=digest)
    small.store.replace(small.label_path(name, unit), write_labels(shard.rows, shard.labels, "json", meta))
    generations = (card.labels_generation, card.tokens_generation)
    paths = {ledger_path(name, generation, unit.name, digest) for generation in generations}
    for path in paths:
        small.store.create(path, data)
    return paths


def with_fault(problem: str, paths: set[str]) -> set[tuple[str, str]]:
    return {(problem, path) for path in paths}


def test_the_ledger_of_the_sound_dataset_says_why_a_row_is_null(small):
    unit = small.units[0]
    (failure,) = read_ledger(small.store.read(small.ledger_path("color_palette", unit)))
    assert (failure.key, failure.view) == (small.keys[unit][0], 1)


def test_a_failure_of_a_row_that_has_a_value_is_found(small):
    unit = small.units[0]
    first = small.keys[unit][0]
    for view in (0, None):
        paths = relabel_ledger(small, [Failure(first, "color_palette", "?", "ValueError", unit.name, view)])
        assert findings(small) == with_fault("contradiction", paths)
        assert all(f"{first!r} failed" in fault.what for fault in verify(small.store).faults)
    relabel_ledger(small, [Failure(first, "color_palette", "?", "ValueError", unit.name, 1)])
    assert findings(small) == set()


def test_a_failure_of_a_stranger_is_found(small):
    paths = relabel_ledger(small, [Failure("nobody", "color_palette", "?", "ValueError", small.units[0].name)])
    assert findings(small) == with_fault("contradiction", paths)
    assert all("'nobody', which its unit doesn't hold" in fault.what for fault in verify(small.store).faults)


def test_a_ledger_that_is_about_something_else_is_found(small):
    paths = relabel_ledger(small, [Failure(small.keys[small.units[0]][0], "dinov2", "?", "E", small.units[0].name)])
    assert findings(small) == with_fault("contradiction", paths)


def test_a_deleted_ledger_is_missed(small):
    unit = small.units[0]
    paths = {small.ledger_path("color_palette", unit, labels) for labels in (False, True)}
    paths.add(small.ledger_path("corpus", unit))
    for path in paths:
        path_of(small, path).unlink()
    assert len(paths) == 3
    assert findings(small) == with_fault("missing", paths)


def test_a_ledger_whose_digest_only_begins_as_the_shards_is_found(small):
    unit = small.units[0]
    path = small.ledger_path("color_palette", unit)
    digest = digest_of(small.store.read(path))
    rewrite_tokens(small, "color_palette", unit, ledger=digest[:16] + "0" * 48)
    assert findings(small) == {("damaged", path)}


def test_a_ledger_that_no_shard_refers_to_is_no_fault(small):
    """As a writer leaves it that dies before its shard is there, or that another one outruns."""
    unit, card = small.units[0], small.manifest.modalities["color_palette"]
    data = write_ledger([Failure(small.keys[unit][1], "color_palette", "too dark", "ValueError", unit.name)])
    for generation in (card.labels_generation, card.tokens_generation):
        for stem in (unit.name, f"{unit.name}-r1"):
            small.store.create(ledger_path("color_palette", generation, stem, digest_of(data)), data)
    assert findings(small) == set()


def test_a_modality_that_differs_in_what_the_reader_refused_is_found(small):
    rewrite_tokens(small, "dinov2", small.units[0], rejected="")
    assert findings(small) == {("contradiction", small.token_path("dinov2", small.units[0]))}
