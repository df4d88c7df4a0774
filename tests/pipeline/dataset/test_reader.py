"""The one reader of a unit's column: a shard that isn't what its name and its card say is never taken for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_dataset import VIEWS, SmallDataset, rewrite_tokens, write_dataset
from tokenloom.pipeline.dataset.layout import label_path, ledger_path, token_path
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.dataset.reader import ColumnReader, DatasetReader
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


@pytest.mark.parametrize("read", [ColumnReader.tokens, ColumnReader.token_table])
@pytest.mark.parametrize("other", [{"modality": "depth"}, {"fingerprint": "0" * 32}])
def test_tokens_of_something_else_are_refused(small, read, other):
    unit = small.units[0]
    rewrite_tokens(small, "dinov2", unit, **other)
    with pytest.raises(
        DatasetError, match=f"{token_path('dinov2', unit)}: holds .* not what its name and dataset.json"
    ):
        read(reader_of(small), unit, "dinov2")


@pytest.mark.parametrize("views", [[0] * 8, [1, 0] * 4, [0, 10**30] * 4, [0, 1] * 3 + [0]])
def test_labels_whose_rows_are_other_views_are_refused(small, views):
    unit = small.units[0]
    path = label_path("color_palette", unit)
    shard = read_labels(small.store.read(path))
    keys = [key for key in shard.rows.keys for _ in range(2)][: len(views)]
    small.store.replace(path, write_labels(RowKeys(keys, views), [b"{}"] * len(views), "json", shard.meta))
    with pytest.raises(DatasetError, match="its rows aren't 2 views of each sample"):
        reader_of(small).labels(unit, "color_palette")


def test_labels_made_otherwise_are_refused(small):
    unit = small.units[0]
    path = label_path("color_palette", unit)
    shard = read_labels(small.store.read(path))
    meta = replace(shard.meta, fingerprint="0" * 32)
    small.store.replace(path, write_labels(shard.rows, shard.labels, "json", meta))
    with pytest.raises(DatasetError, match=f"{path}: holds .* made by 000000000000"):
        reader_of(small).labels(unit, "color_palette")


def test_the_ledger_that_a_shard_refers_to_is_read_and_no_other(small):
    unit, reader = small.units[0], reader_of(small)
    column, path = reader.tokens(unit, "color_palette"), ledger_path("color_palette", unit)
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
    path = token_path("dinov2", unit)
    assert reader.keys(unit, "dinov2") == small.keys[unit]
    rewrite_tokens(small, "dinov2", unit, fingerprint="0" * 32)
    with pytest.raises(DatasetError, match=f"{path}: holds .* made by 000000000000"):
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
