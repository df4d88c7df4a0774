"""Labels that a dataset keeps, as they are read again: of views, and of whole images cut by the views."""

from __future__ import annotations

import numpy as np
import pytest
from small_dataset import CARDS, label_of, repair_palette, write_dataset
from tokenloom.labelers.contract.images import read_header
from tokenloom.labelers.contract.kinds import Image
from tokenloom.labelers.contract.views import ViewSettings, cut_view
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.storage.store import Store
from tokenloom.pipeline.views.kept_labels import KeptLabels
from weaving import odd, recipe, weave_here


def test_kept_labels_of_views(tmp_path):
    written = write_dataset(tmp_path / "data")
    kind = CARDS["color_palette"].label_kind
    labels = list(KeptLabels(written.store, "color_palette").read(kind))
    expected = [
        row.values["color_palette"] for row in open_dataset(tmp_path / "data").iterate(["color_palette"], labels=True)
    ]
    assert labels == [label for label in expected if label is not None]
    some = list(KeptLabels(written.store, "color_palette", units=[written.units[0], written.units[2]]).read(kind))
    per_unit = len(expected) // len(written.units)
    assert some == [label for label in expected[:per_unit] + expected[2 * per_unit : 3 * per_unit] if label is not None]


def test_kept_labels_are_those_of_the_highest_complete_revision(tmp_path):
    written = write_dataset(tmp_path)
    kept = KeptLabels(written.store, "color_palette")
    kind = CARDS["color_palette"].label_kind
    before = list(kept.read(kind))
    repair_palette(written, written.units[0])
    label = label_of("color_palette", written.keys[written.units[0]][0], 1)
    assert list(kept.read(kind)) == [before[0], label, *before[1:]]


def test_kept_labels_of_whole_images_are_cut_by_the_views(corpus_tar, photos, tmp_path):
    views = {"size": 32, "count": 2, "min_scale": 0.3}
    weave_here(recipe(corpus_tar, tmp_path / "data", {"grey_image": odd("GreyImage")}, views=views))
    dataset = open_dataset(tmp_path / "data")
    kind = dataset.modalities["grey_image"].kind
    labels = list(KeptLabels(dataset.store, "grey_image").read(kind))
    expected = []
    for row in dataset.iterate(["grey_image"], labels=True):
        header = read_header(photos[row.key.rpartition("/")[2]])
        view = cut_view(0, row.key, row.view, header.height, header.width, ViewSettings(**views))
        expected.append(kind.crop(row.values["grey_image"], view))
    assert len(labels) == 2 * len(photos)
    assert all(np.array_equal(label, wanted) for label, wanted in zip(labels, expected, strict=True))


def test_kept_labels_that_cant_be_had_are_named(corpus_tar, tmp_path):
    weave_here(recipe(corpus_tar, tmp_path / "data", {"grey_image": odd("GreyImage")}))
    store = Store(tmp_path / "data")
    with pytest.raises(DatasetError, match="keeps no labels of 'depth'"):
        list(KeptLabels(store, "depth").read(Image()))
    corpus_tar.unlink()
    with pytest.raises(DatasetError, match="the corpus has to be read"):
        list(KeptLabels(store, "grey_image").read(Image(1, content="intensity")))
