"""The one reader of a unit's column: a shard that isn't what its name and its card say is never taken for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_dataset import VIEWS, SmallDataset, label_of, repair_palette, rewrite_tokens, write_dataset
from tokenloom.pipeline.dataset.layout import label_path, token_path
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.dataset.reader import ColumnReader, DatasetReader
from tokenloom.pipeline.dataset.shard_meta import rows_digest
from tokenloom.pipeline.dataset.shards import RowKeys, read_labels, write_labels


@pytest.fixture
def small(tmp_path) -> SmallDataset:
    return write_dataset(tmp_path)


def reader_of(small: SmallDataset) -> ColumnReader:
    return ColumnReader(small.store, small.manifest.modalities, VIEWS)


def test_a_column_has_a_value_for_every_view_or_one_for_the_sample(small):
    unit, reader = small.units[0], reader_of(small)
    tokens, labels = reader.tokens(unit, "color_palette"), reader.labels(unit, "color_palette")
    assert tokens.keys == labels.keys == small.keys[unit]
    assert (tokens.per_sample, len(tokens.values)) == (VIEWS, VIEWS * len(tokens.keys))
    whole = [name for name, card in small.manifest.modalities.items() if card.on != "view" and card.keeps_labels]
    for name in whole:
        column = reader.labels(unit, name)
        assert (column.per_sample, len(column.values)) == (1, len(column.keys))
        assert column.value(2, 0) is column.value(2, VIEWS - 1)
    assert whole


@pytest.mark.parametrize("read", [ColumnReader.tokens, ColumnReader.token_table, ColumnReader.token_column])
@pytest.mark.parametrize("other", [{"modality": "depth"}, {"generation": "0" * 16}])
def test_tokens_of_something_else_are_refused(small, read, other):
    unit = small.units[0]
    rewrite_tokens(small, "dinov2", unit, **other)
    with pytest.raises(DatasetError, match=f"{small.token_path('dinov2', unit)}: holds .* not what its name says"):
        read(reader_of(small), unit, "dinov2")


def test_tokens_alone_come_with_what_tells_their_rows(small):
    reader, unit = reader_of(small), small.units[0]
    (rows, caption), (same, dinov2) = (reader.token_column(unit, name) for name in ("caption", "dinov2"))
    keys = reader.token_table(unit, "caption")["key"].to_pylist()
    assert rows == same == rows_digest(keys, [0, 1] * unit.count)
    assert caption.to_pylist() == reader.token_table(unit, "caption")["tokens"].to_pylist()
    assert len(dinov2) == VIEWS * unit.count
    rewrite_tokens(small, "dinov2", unit, order=[1, 0, 2, 3])
    assert reader.token_column(unit, "dinov2")[0] != rows
    rewrite_tokens(small, "dinov2", unit, order=[1, 0])
    with pytest.raises(DatasetError, match=f"{small.token_path('dinov2', unit)}: it has 4 rows, not 2 views of 4"):
        reader.token_column(unit, "dinov2")


@pytest.mark.parametrize("views", [[0] * 8, [1, 0] * 4, [0, 10**30] * 4, [0, 1] * 3 + [0]])
def test_labels_whose_rows_are_other_views_are_refused(small, views):
    unit = small.units[0]
    path = small.label_path("color_palette", unit)
    shard = read_labels(small.store.read(path))
    keys = [key for key in shard.rows.keys for _ in range(2)][: len(views)]
    small.store.replace(path, write_labels(RowKeys(keys, views), [b"{}"] * len(views), "json", shard.meta))
    with pytest.raises(DatasetError, match="its rows aren't 2 views of each sample"):
        reader_of(small).labels(unit, "color_palette")


def test_labels_made_otherwise_are_refused(small):
    unit = small.units[0]
    path = small.label_path("color_palette", unit)
    shard = read_labels(small.store.read(path))
    meta = replace(shard.meta, generation="0" * 16)
    small.store.replace(path, write_labels(shard.rows, shard.labels, "json", meta))
    with pytest.raises(DatasetError, match=f"{path}: holds .* generation 0000000000000000"):
        reader_of(small).labels(unit, "color_palette")


def test_the_ledger_that_a_shard_refers_to_is_read_and_no_other(small):
    unit, reader = small.units[0], reader_of(small)
    column, path = reader.tokens(unit, "color_palette"), small.ledger_path("color_palette", unit)
    assert [failure.key for failure in reader.failures(unit, column)] == [small.keys[unit][0]]
    assert reader.failures(unit, reader.tokens(unit, "dinov2")) == []
    small.store.replace(path, small.store.read(path) * 2)
    with pytest.raises(DatasetError, match=f"{path}: its bytes aren't those that"):
        reader.failures(unit, column)
    small.store.delete(path)
    with pytest.raises(DatasetError, match=f"{path}: it is missing"):
        reader.failures(unit, column)


def test_keys_are_read_alone_and_checked_as_well(small):
    unit, reader = small.units[0], reader_of(small)
    path = small.token_path("dinov2", unit)
    assert reader.keys(unit, "dinov2") == small.keys[unit]
    rewrite_tokens(small, "dinov2", unit, generation="0" * 16)
    with pytest.raises(DatasetError, match=f"{path}: holds .* generation 0000000000000000"):
        reader.keys(unit, "dinov2")
    small.store.replace(path, b"junk")
    with pytest.raises(DatasetError, match=f"{path}: it isn't a readable Parquet file"):
        reader.keys(unit, "dinov2")


def test_rows_are_joined_from_columns_of_the_same_samples(small):
    reader = DatasetReader(small.store, small.manifest)
    unit = small.units[0]
    rows = list(reader.rows([unit], ["dinov2", "color_palette"], views=[1], labels=["color_palette"]))
    assert [(row.key, row.view) for row in rows] == [(key, 1) for key in small.keys[unit]]
    column = reader.columns.tokens(unit, "dinov2")
    for sample, row in enumerate(rows):
        np.testing.assert_array_equal(row.values["dinov2"], column.value(sample, 1))


def palette_of(small: SmallDataset):
    """The palette that had failed, as a reader that opens the dataset now has it: label, tokens and failures."""
    unit, reader = small.units[0], DatasetReader(small.store, small.manifest)
    columns = reader.columns
    tokens, labels = columns.tokens(unit, "color_palette"), reader.column(unit, "color_palette", label=True)
    return labels.value(0, 1), tokens.value(0, 1), columns.failures(unit, tokens)


def test_the_highest_complete_revision_of_a_unit_is_read(small):
    unit = small.units[0]
    reader = reader_of(small)
    before = reader.tokens(unit, "color_palette")
    assert palette_of(small)[:2] == (None, None)
    repair_palette(small, unit)
    label, tokens, failures = palette_of(small)
    assert label == label_of("color_palette", small.keys[unit][0], 1)
    assert len(tokens) == 7
    assert failures == []
    after = DatasetReader(small.store, small.manifest).columns.tokens(unit, "color_palette")
    assert after.path == before.path.replace(".parquet", "-r1.parquet")
    for place, (old, new) in enumerate(zip(before.values, after.values, strict=True)):
        assert place == 1 or np.array_equal(old, new)
    assert reader.tokens(unit, "color_palette").values[1] is None  # whoever has listed before goes on with what was


@pytest.mark.parametrize("lacking", ["tokens", "labels"])
def test_a_revision_of_which_not_all_is_there_is_not_read(small, lacking):
    unit, card = small.units[0], small.manifest.modalities["color_palette"]
    repair_palette(small, unit)
    small.store.delete(
        token_path("color_palette", card.tokens_generation, unit, 1)
        if lacking == "tokens"
        else label_path("color_palette", card.labels_generation, unit, 1)
    )
    label, tokens, (failure,) = palette_of(small)
    assert (label, tokens) == (None, None)
    assert (failure.key, failure.view) == (small.keys[unit][0], 1)
    assert DatasetReader(small.store, small.manifest).finished["color_palette"] == frozenset(small.units)
