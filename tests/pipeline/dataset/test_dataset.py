"""Reading a dataset: what a trainer is told, iteration, random access, decoding, torch and Ray; here and on S3."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from small_dataset import CARDS, VIEWS, label_of, made_anew, pending, repair_palette, write_dataset, write_unit
from tokenloom.pipeline.dataset.dataset import UnknownKeyError, open_dataset
from tokenloom.pipeline.dataset.layout import manifest_path
from tokenloom.pipeline.dataset.manifest import DatasetError, publish
from tokenloom.pipeline.storage.store import Store


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def dataset(small):
    return open_dataset(small.store.url)


def rows_of(small):
    return [(key, view) for unit in sorted(small.units) for key in small.keys[unit] for view in range(VIEWS)]


def test_modalities_tell_a_trainer_all(dataset, small):
    assert list(dataset.modalities) == list(CARDS)
    dinov2 = dataset.modalities["dinov2"]
    assert (dinov2.token_type, dinov2.length, dinov2.max_length, dinov2.grid) == ("grid", 9, 9, (3, 3))
    assert dinov2.vocabulary == dinov2.tokenizer().spec.vocabulary
    assert dinov2.dtype == np.uint16
    assert dinov2.weights is not None
    assert dinov2.weights.licence == "Apache-2.0"
    assert (dinov2.has_tokens, dinov2.has_labels) == (True, False)
    caption = dataset.modalities["caption"]
    assert (caption.token_type, caption.length, caption.grid) == ("text", None, None)
    assert caption.generation == small.manifest.modalities["caption"].tokens_generation
    edges = dataset.modalities["canny_edge"]
    assert (edges.token_type, edges.has_tokens, edges.has_labels, edges.on) == (None, False, True, "image")
    assert edges.generation == small.manifest.modalities["canny_edge"].labels_generation
    with pytest.raises(DatasetError, match="canny_edge has no tokenizer"):
        edges.tokenizer()


def test_length_and_units_come_from_names(dataset, small):
    assert len(dataset) == sum(len(keys) for keys in small.keys.values())
    assert dataset.units() == sorted(small.units)
    assert "modalities: caption, color_palette, dinov2, canny_edge" in repr(dataset)


def test_rows_come_joined_and_in_order(dataset, small):
    rows = list(dataset)
    assert [(row.key, row.view) for row in rows] == rows_of(small)
    tokenizers = {name: info.tokenizer() for name, info in dataset.modalities.items() if info.has_tokens}
    for row in rows:
        assert list(row.values) == ["caption", "color_palette", "dinov2"]
        for name, ids in row.values.items():
            label = small.labels[name].get((row.key, row.view), small.labels[name].get((row.key, 0)))
            if name == "color_palette" and (row.key, row.view) == (small.keys[small.units[0]][0], 1):
                label = None
            if label is None:
                assert ids is None
            else:
                np.testing.assert_array_equal(ids, tokenizers[name].encode([label])[0])
                assert ids.dtype == dataset.modalities[name].dtype


def test_absent_values_are_none(dataset, small):
    assert dataset.get(small.keys[small.units[0]][3]).values["caption"] is None
    assert dataset.get(small.keys[small.units[0]][0], view=1).values["color_palette"] is None


def test_labels_in_place_of_tokens(dataset, small):
    for row in dataset.iterate(labels=True):
        assert list(row.values) == ["caption", "color_palette", "canny_edge"]
        assert row.values["caption"] == small.labels["caption"][row.key, 0]
        assert row.values["color_palette"] == small.labels["color_palette"][row.key, row.view]
        np.testing.assert_array_equal(row.values["canny_edge"], small.labels["canny_edge"][row.key, 0])


def test_labels_of_some_and_tokens_of_others(dataset):
    row = next(dataset.iterate(["dinov2", "canny_edge"], labels=["canny_edge"]))
    assert row.values["dinov2"].shape == (9,)
    assert row.values["canny_edge"].shape == (6, 8)
    assert list(next(dataset.iterate(labels="canny_edge")).values)[-1] == "canny_edge"


def test_some_views_only(dataset, small):
    rows = list(dataset.iterate(["dinov2"], views=[1]))
    assert [(row.key, row.view) for row in rows] == [row for row in rows_of(small) if row[1] == 1]


def test_random_access_gives_what_iteration_gives(dataset):
    for row in dataset.iterate():
        again = dataset.get(row.key, row.view)
        assert (again.key, again.view) == (row.key, row.view)
        for name, ids in row.values.items():
            np.testing.assert_equal(again.values[name], ids)
    assert dataset[row.key].view == 0
    assert row.key in dataset


def test_random_access_reads_one_column_of_one_modality_for_its_index(small, monkeypatch):
    dataset = open_dataset(small.store.url)
    opened, whole = [], []
    original_open, original_read = Store.open, Store.read
    monkeypatch.setattr(Store, "open", lambda self, path, *a: opened.append(path) or original_open(self, path, *a))
    monkeypatch.setattr(Store, "read", lambda self, path: whole.append(path) or original_read(self, path))
    assert small.keys[small.units[-1]][2] in dataset
    assert len(opened) == len(small.units)
    assert whole == []
    dataset.get(small.keys[small.units[-1]][2], modalities=["dinov2"])
    assert whole == [small.token_path("dinov2", small.units[-1])]
    dataset.get(small.keys[small.units[-1]][1], modalities=["dinov2"])
    assert len(whole) == 1


def test_an_index_of_labels_alone(tmp_path, small):
    edges = small.manifest.modalities["canny_edge"]
    alone = Store(tmp_path)
    manifest = small.manifest.__class__(**{**small.manifest.__dict__, "modalities": {"canny_edge": edges}})
    alone.create(manifest_path(1), manifest.to_bytes())
    for unit in small.units:
        path = small.label_path("canny_edge", unit)
        alone.create(path, small.store.read(path))
    key = small.keys[small.units[2]][1]
    label = open_dataset(tmp_path).get(key, labels=True).values["canny_edge"]
    np.testing.assert_array_equal(label, small.labels["canny_edge"][key, 0])


def test_decode(dataset, small):
    key = small.keys[small.units[1]][1]
    row = dataset[key]
    assert dataset.decode("color_palette", row.values["color_palette"]) == small.labels["color_palette"][key, 0]
    assert dataset.decode("caption", row.values["caption"].tolist()) == small.labels["caption"][key, 0]
    assert dataset.decode("dinov2", row.values["dinov2"]).shape == (4, 3, 3)
    absent = dataset.get(small.keys[small.units[0]][0], view=1)
    assert dataset.decode_row(absent)["color_palette"] is None
    assert dataset.decode_row(row).keys() == row.values.keys()


def test_mistakes_are_named(dataset, small):
    with pytest.raises(DatasetError, match="no modality 'depth'; it has caption, "):
        next(dataset.iterate(["depth"]))
    with pytest.raises(DatasetError, match="no tokens of canny_edge"):
        next(dataset.iterate(["canny_edge"]))
    with pytest.raises(DatasetError, match="no labels of dinov2"):
        next(dataset.iterate(["dinov2"], labels=True))
    with pytest.raises(UnknownKeyError, match=r"no finished sample has the key 'nobody'$"):
        dataset["nobody"]
    with pytest.raises(DatasetError, match="no view 2"):
        dataset.get(small.keys[small.units[0]][0], view=2)
    with pytest.raises(DatasetError, match="no dataset here"):
        open_dataset(f"{small.store.url}/caption")


def test_an_unfinished_dataset_is_read_as_far_as_it_goes(tmp_path):
    small = write_dataset(tmp_path)
    lacking = sorted(small.units)[1]
    small.store.delete(small.token_path("dinov2", lacking))
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 12
    assert len(list(dataset.iterate(["caption"]))) == 16 * VIEWS
    assert len(list(dataset.iterate(["caption", "dinov2"]))) == 12 * VIEWS
    key = small.keys[lacking][0]
    assert dataset.get(key, modalities=["color_palette"]).values["color_palette"] is not None
    with pytest.raises(DatasetError, match="dinov2 isn't made yet for"):
        dataset[key]


def test_a_sample_that_was_tried_again_has_its_value(tmp_path):
    small = write_dataset(tmp_path)
    unit = small.units[0]
    key = small.keys[unit][0]
    assert open_dataset(tmp_path).get(key, view=1).values["color_palette"] is None
    repair_palette(small, unit)
    dataset = open_dataset(tmp_path)
    label = label_of("color_palette", key, 1)
    assert dataset.decode_row(dataset.get(key, view=1))["color_palette"] == label
    assert dataset.get(key, view=1, labels=["color_palette"]).values["color_palette"] == label
    assert len(dataset) == 16


def test_a_dataset_that_is_open_goes_on_with_what_it_named(tmp_path):
    """While a run replaces a modality, tries samples again, and has it published; then others read the new one."""
    small = write_dataset(tmp_path)
    opened = open_dataset(tmp_path)
    assert len(opened) == 16
    renewed = made_anew(small, "color_palette", version=2)
    pending(small, renewed, "color_palette")
    assert (
        open_dataset(tmp_path).modalities["color_palette"].generation == opened.modalities["color_palette"].generation
    )
    repair_palette(renewed, small.units[0])
    publish(small.store, lambda now: renewed.manifest)
    reopened = open_dataset(tmp_path)
    assert reopened.modalities["color_palette"].generation != opened.modalities["color_palette"].generation
    key = small.keys[small.units[0]][0]
    assert opened.get(key, view=1).values["color_palette"] is None
    assert reopened.get(key, view=1).values["color_palette"] is not None
    for one, other in zip(opened, reopened, strict=True):
        np.testing.assert_equal(one.values["dinov2"], other.values["dinov2"])


def test_a_modality_that_is_begun_anew_is_read_as_it_was_until_it_is_complete(tmp_path):
    small = write_dataset(tmp_path)
    pending(small, made_anew(small, "dinov2", units=3, version=2), "dinov2")
    rows = list(open_dataset(tmp_path).iterate(["dinov2"]))
    assert [(row.key, row.view) for row in rows] == rows_of(small)


@pytest.mark.slow
def test_shards_that_are_misaligned_are_named(tmp_path):
    small = write_dataset(tmp_path)
    other = write_dataset(tmp_path / "other", samples=4)
    unit = sorted(small.units)[0]
    other.keys[unit] = list(reversed(other.keys[unit]))
    path, caption = (small.token_path(name, unit) for name in ("dinov2", "caption"))
    other.store.delete(path)
    write_unit(other, unit, modalities=["dinov2"])
    small.store.replace(path, other.store.read(path))
    dataset = open_dataset(tmp_path)
    with pytest.raises(DatasetError, match=f"{path} and .*/{caption} don't hold the same samples"):
        list(dataset)


def test_shards_under_a_false_name_or_broken_are_named(tmp_path):
    small = write_dataset(tmp_path)
    first, second, *_ = sorted(small.units)
    path = small.token_path("dinov2", first)
    small.store.replace(path, small.store.read(small.token_path("dinov2", second)))
    with pytest.raises(DatasetError, match=f"{path}: holds dinov2 of {second.name}"):
        list(open_dataset(tmp_path))
    small.store.replace(path, b"PAR1")
    with pytest.raises(DatasetError, match=f"{path}: it isn't a readable Parquet file"):
        list(open_dataset(tmp_path))


def test_a_dataset_can_be_sent(dataset):
    assert dataset["photos/00000.0/1"].key == "photos/00000.0/1"
    sent = pickle.loads(pickle.dumps(dataset))
    assert [row.key for row in sent] == [row.key for row in dataset]
    assert sent.modalities["dinov2"].tokenizer().spec == dataset.modalities["dinov2"].tokenizer().spec


@pytest.mark.parametrize("workers", [0, 2])
def test_torch_deals_every_row_to_exactly_one_worker_of_one_rank(dataset, workers):
    import torch
    from torch.utils.data import DataLoader

    expected = [row.values for row in dataset.iterate(["dinov2", "color_palette"])]
    got = []
    for rank in range(2):
        rows = dataset.torch(["dinov2", "color_palette"], rank=rank, world_size=2)
        got += list(DataLoader(rows, batch_size=None, num_workers=workers))
    assert len(got) == len(expected)
    assert {type(ids) for row in got for ids in row.values()} == {torch.Tensor, type(None)}
    assert all(row["dinov2"].dtype == torch.int64 for row in got)
    written = lambda row: str([None if ids is None else ids.tolist() for ids in row.values()])  # noqa: E731
    assert sorted(map(written, got)) == sorted(map(written, expected))


def test_torch_refuses_a_rank_out_of_range(dataset):
    with pytest.raises(ValueError, match=r"rank 2 isn't in 0..1"):
        dataset.torch(rank=2, world_size=2)


def test_ray_reads_the_same_rows(dataset, small, ray_session):
    rows = dataset.ray(["dinov2", "caption"]).take_all()
    expected = list(dataset.iterate(["dinov2", "caption"]))
    assert sorted((row["key"], row["view"]) for row in rows) == sorted((row.key, row.view) for row in expected)
    by_row = {(row["key"], row["view"]): row for row in rows}
    for row in expected:
        for name, ids in row.values.items():
            np.testing.assert_equal(by_row[row.key, row.view][name], ids)
    assert dataset.ray(["dinov2"], views=[1]).count() == len(expected) // VIEWS


def test_the_same_on_s3(s3_url, small):
    on_s3 = write_dataset(s3_url)
    local, there = open_dataset(small.store.url), open_dataset(s3_url)
    for one, other in zip(local, there, strict=True):
        assert (one.key, one.view) == (other.key, other.view)
        for name, ids in one.values.items():
            np.testing.assert_equal(other.values[name], ids)
    key = on_s3.keys[on_s3.units[3]][2]
    np.testing.assert_equal(there[key].values["dinov2"], local[key].values["dinov2"])
    assert len(there) == len(local)
