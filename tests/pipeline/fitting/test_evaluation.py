"""Evaluation of tokenizers: kept labels, encoded and decoded, against the same done by hand."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpus_files import tar_bytes
from galleries import weave_photos, without_corpus
from in_process import weave
from small_dataset import SmallDataset, write_dataset
from tokenloom.labelers.contract.images import read_header
from tokenloom.labelers.contract.kinds import Image
from tokenloom.labelers.contract.views import ViewSettings, cut_view
from tokenloom.pipeline.corpus.units import Unit
from tokenloom.pipeline.dataset.cards import TokensCard
from tokenloom.pipeline.dataset.finished import list_finished
from tokenloom.pipeline.dataset.layout import label_path, tokenizer_folder
from tokenloom.pipeline.dataset.listings import read_taken, store_listing
from tokenloom.pipeline.dataset.manifest import DatasetError, require_manifest
from tokenloom.pipeline.dataset.reader import Column, ColumnReader
from tokenloom.pipeline.dataset.shards import RowKeys, write_labels
from tokenloom.pipeline.dataset.tokenizers import load_tokenizer
from tokenloom.pipeline.engine.commit import UnitWriter
from tokenloom.pipeline.engine.labeling import Result
from tokenloom.pipeline.fitting.evaluation import evaluate, labels_at_hand
from tokenloom.pipeline.fitting.open_tokenizer import TokenizerError, open_tokenizer
from tokenloom.pipeline.plan.weights import WeightsError
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.codebooks.codebook import PatchCodebook, PatchParams
from tokenloom.tokenizers.instances.unquantised import reconstruct_unquantised
from tokenloom.tokenizers.measures.reconstruction import ErrorSum
from tokenloom.tokenizers.vq.vq import VQParams, VQTokenizer
from weaving import odd, recipe, write_manifest

SIZE = 96  # of the views that weave_photos cuts
TINY = VQParams(encoder="vit_xt_enc", decoder="vit_xt_dec", codes=16, latent=8)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> SmallDataset:
    return write_dataset(tmp_path_factory.mktemp("small") / "dataset")


@pytest.fixture(scope="module")
def photo_dataset(photos, tmp_path_factory) -> Path:
    """Labels of rgb, on views, and of edges, on whole images, of photographs of several shapes."""
    return weave_photos(tmp_path_factory.mktemp("woven"), photos, "rgb")


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def views(photo_dataset) -> list[np.ndarray]:
    store = Store(photo_dataset)
    return list(labels_at_hand(store, require_manifest(store), "rgb"))


@pytest.fixture(scope="module")
def network(views, tmp_path_factory) -> Path:
    """A folder with a VQ tokenizer of rgb whose weights nobody has trained."""
    tokenizer = VQTokenizer(Image(3), TINY)
    tokenizer.finish(tokenizer.design(np.concatenate([tokenizer.examples(view) for view in views]), 0), {})
    return write_files(tmp_path_factory.mktemp("network") / "tokenizer", tokenizer.to_files())


# --- the dataset's own ------------------------------------------------------------------------------------------------


def test_errors_and_codes_are_those_of_encoding_and_decoding(small):
    found = evaluate(small.store.url, "color_palette")
    card = small.manifest.modalities["color_palette"]
    tokenizer, sums = load_tokenizer(small.store, "color_palette", card), ErrorSum(card.label_kind)
    labels = [label for label in small.labels["color_palette"].values() if label is not None]
    tokens = tokenizer.encode(labels)
    for label, decoded in zip(labels, tokenizer.decode(tokens), strict=True):
        sums.add(label, decoded)
    used = np.unique(np.concatenate(tokens))
    assert (found.labels, found.errors, found.bound) == (31, sums.means(), None)
    assert found.tokenizer == "palette"
    assert found.codes.vocabulary == tokenizer.spec.vocabulary
    assert found.codes.unused == found.codes.vocabulary - len(used)
    assert found.codes.used == pytest.approx(len(used) / found.codes.vocabulary)
    assert found.codes.tokens == 7
    assert found.codes.bits == pytest.approx(7 * math.log2(tokenizer.spec.vocabulary))


def test_samples_without_a_label_are_left_out(small):
    captions = [label for label in small.labels["caption"].values() if label is not None]
    found = evaluate(small.store.url, "caption")
    assert (found.labels, found.errors) == (len(captions), {"exact": 1, "word_f1": 1})
    assert evaluate(small.store.url, "caption", limit=3).labels == 3


def test_what_cannot_be_evaluated_says_what_to_do(small):
    with pytest.raises(DatasetError, match=r"no labels of dinov2 are kept.*`keep: both` for dinov2"):
        evaluate(small.store.url, "dinov2")
    with pytest.raises(DatasetError, match="no modality 'depth'; it has caption, color_palette"):
        evaluate(small.store.url, "depth")
    with pytest.raises(DatasetError, match="canny_edge has no tokenizer"):
        evaluate(small.store.url, "canny_edge")
    with pytest.raises(DatasetError, match="no dataset here"):
        evaluate(f"{small.store.url}/nothing", "rgb")


def test_a_tokenizer_is_tried_on_what_it_was_not_fitted_to(corpus, tmp_path):
    """On all, where there is nothing else."""
    grid = odd("Grid", keep="both", tokenizer={"name": "codebook", "params": {"size": 4}})
    for units, tried in ((1, 4), (2, 2), (3, 6)):
        output = str(tmp_path / str(units))
        weave(recipe(corpus, output, {"grid": grid}, units={"samples": 2}, views={"size": 32}, fit={"units": units}))
        found = evaluate(output, "grid")
        assert (found.labels, found.held_out) == (tried, units < 3)
        assert evaluate(output, "grid", f"{output}/grid").labels == 6


def test_where_nothing_was_held_out_that_has_a_label_all_are_tried(photos, tmp_path):
    """Three tars that were fitted to, and one that holds nothing."""
    names = sorted(photos)[:3]
    (tmp_path / "tars").mkdir()
    for name in names:
        (tmp_path / "tars" / f"{name}.tar").write_bytes(tar_bytes([(f"{name}.jpg", photos[name])]))
    (tmp_path / "tars" / "z.tar").write_bytes(tar_bytes([]))
    settings = {**odd("Grid"), "keep": "both", "tokenizer": {"name": "codebook", "params": {"size": 4}}}
    weave(recipe(tmp_path / "tars", tmp_path / "out", {"grid": settings}, fit={"units": 3}))
    found = evaluate(str(tmp_path / "out"), "grid")
    assert (found.labels, found.held_out) == (3, False)


# --- another tokenizer ------------------------------------------------------------------------------------------------


def test_a_network_is_tried_with_and_without_quantisation(photo_dataset, views, network):
    found = evaluate(str(photo_dataset), "rgb", str(network))
    tokenizer = VQTokenizer.from_weights(Image(3), None, network, "here")
    sums, bound = ErrorSum(Image(3)), ErrorSum(Image(3))
    tokens = tokenizer.encode(views)
    for view, decoded, unquantised in zip(
        views, tokenizer.decode(tokens), reconstruct_unquantised(tokenizer, views), strict=True
    ):
        sums.add(view, decoded)
        bound.add(view, unquantised)
    assert found.labels == len(views) == 7
    assert found.errors == pytest.approx(sums.means())
    assert found.bound == pytest.approx(bound.means())
    assert found.bound != pytest.approx(found.errors)
    assert (found.codes.vocabulary, found.codes.codebooks, found.codes.tokens) == (16, 1, 36)
    assert found.codes.bits == 36 * 4
    assert found.codes.unused == 16 - len(np.unique(np.concatenate(tokens)))


def test_codebooks_are_counted_apart(photo_dataset, views, tmp_path):
    """Residual quantisation: as many codebooks as tokens a cell, in the order in which they come."""
    tokenizer = VQTokenizer(Image(3), TINY.model_copy(update={"quantizer": "residual", "tokens": 3}))
    tokenizer.finish(tokenizer.design(np.concatenate([tokenizer.examples(view) for view in views]), 0), {})
    folder = write_files(tmp_path / "residual", tokenizer.to_files())
    codes = evaluate(str(photo_dataset), "rgb", str(folder)).codes
    tokens = np.stack(tokenizer.encode(views)).reshape(len(views), 3, 36)
    used = sum(len(np.unique(tokens[:, book])) for book in range(3))
    assert (codes.codebooks, codes.unused, codes.tokens) == (3, 3 * 16 - used, 108)
    assert codes.used == pytest.approx(used / 48)


def test_labels_of_whole_images_are_cropped_to_the_views(photo_dataset, photos, tmp_path):
    """As if the maps of edges spanned the whole photographs, one of which is broken and has none."""
    moved = tmp_path / "dataset"
    shutil.copytree(photo_dataset, moved)
    store, kind = Store(moved), Image(1, content="intensity")
    manifest = require_manifest(store)
    card = replace(manifest.modalities["canny_edge"], on="image")
    for unit, column in columns_of(store, "canny_edge").items():
        meta = replace(column.meta, generation=card.labels_generation)
        data = write_labels(RowKeys.of(column.keys, 1), column.values, kind.extension, meta)
        store.create(label_path("canny_edge", card.labels_generation, unit), data)
    write_manifest(store, replace(manifest, modalities={**manifest.modalities, "canny_edge": card}))
    found = list(labels_at_hand(store, require_manifest(store), "canny_edge"))
    columns = columns_of(store, "canny_edge").values()
    labels = {k: v for column in columns for k, v in zip(column.keys, column.values, strict=True)}
    kept = {key: label for key, label in labels.items() if label is not None}
    assert len(found) == len(kept) == len(photos) + 1
    for label, (key, whole) in zip(found, kept.items(), strict=True):
        header = read_header(photos["coffee" if "coffee" in key else key])
        view = cut_view(manifest.seed, key, 0, header.height, header.width, ViewSettings(size=SIZE))
        np.testing.assert_array_equal(label, kind.crop(kind.decode(whole), view))


def columns_of(store: Store, modality: str) -> dict[Unit, Column]:
    """The kept labels by unit, in order."""
    manifest = require_manifest(store)
    units = sorted(list_finished(store, manifest.modalities, ())[modality].units)
    reader = ColumnReader(store, manifest.modalities, manifest.views["count"])
    return {unit: reader.labels(unit, modality) for unit in units}


def test_a_corpus_out_of_reach_is_named(tmp_path):
    small = without_corpus(write_dataset(tmp_path / "dataset"), tmp_path)
    with pytest.raises(DatasetError, match="the corpus has to be read"):
        list(labels_at_hand(small.store, small.manifest, "canny_edge"))
    assert len(list(labels_at_hand(small.store, small.manifest, "color_palette"))) == 31


def without_labels(photo_dataset: Path, views: list[np.ndarray], folder: Path, same_keys: bool) -> Store:
    """A dataset that has nothing but tokens of rgb; under keys that the corpus has, or others."""
    whole = require_manifest(Store(photo_dataset))
    tokenizer = PatchCodebook(Image(3), PatchParams(size=8, patch_size=16, sample=500))
    tokenizer.fit(views, 0)
    card = replace(
        whole.modalities["rgb"],
        tokens=TokensCard("patch_codebook", 1, tokenizer.params.model_dump(), spec=tokenizer.spec),
        keeps_tokens=True,
        keeps_labels=False,
    )
    store = Store(folder)
    for listing in read_taken(Store(photo_dataset), whole.corpus).listings:
        store_listing(store, listing)
    write_manifest(store, replace(whole, modalities={"rgb": card}))
    for unit, kept in columns_of(Store(photo_dataset), "rgb").items():
        keys = [key if same_keys else f"other/{key}" for key in kept.keys]
        tokens = [None if label is None else tokenizer.encode([Image(3).decode(label)])[0] for label in kept.values]
        UnitWriter(store, unit, keys, 1).commit("rgb", card, Result(tokens))
    return store


def test_views_of_rgb_come_from_the_corpus_where_they_are_not_kept(photo_dataset, views, tmp_path):
    store = without_labels(photo_dataset, views, tmp_path / "tokens", same_keys=True)
    found = list(labels_at_hand(store, require_manifest(store), "rgb"))
    np.testing.assert_array_equal(np.stack(found), np.stack(views))


def test_views_that_the_corpus_lacks_are_missed(photo_dataset, views, tmp_path):
    store = without_labels(photo_dataset, views, tmp_path / "tokens", same_keys=False)
    with pytest.raises(DatasetError, match=r"its views can't be cut from the corpus.*`keep: both` for rgb"):
        list(labels_at_hand(store, require_manifest(store), "rgb"))


# --- tokenizers elsewhere ---------------------------------------------------------------------------------------------


def test_a_tokenizer_is_opened_from_a_folder_and_from_a_url(network, views, place):
    for path in network.iterdir():
        place.replace(f"vq/{path.name}", path.read_bytes())
    here, there = (open_tokenizer(url, Image(3), lambda: None) for url in (str(network), f"{place.url}/vq"))
    np.testing.assert_array_equal(here.encode(views[:2]), there.encode(views[:2]))


def test_a_datasets_own_tokenizer_is_opened_by_its_modality(small):
    card = small.manifest.modalities["dinov2"]
    labels = [label for label in small.labels["dinov2"].values() if label is not None]
    own = load_tokenizer(small.store, "dinov2", card).encode(labels)
    for name in ("dinov2", "dinov2/", tokenizer_folder(card.tokenizer_digest)):
        opened = open_tokenizer(f"{small.store.url}/{name}", card.label_kind, lambda: None)
        np.testing.assert_array_equal(opened.encode(labels), own)
    with pytest.raises(WeightsError, match="no such file or folder"):
        open_tokenizer(f"{small.store.url}/canny_edges", card.label_kind, lambda: None)


def test_a_url_is_read_anew_every_time(network, place):
    """It may have been fitted again since."""
    for path in network.iterdir():
        place.replace(f"vq/{path.name}", path.read_bytes())
    open_tokenizer(f"{place.url}/vq", Image(3), lambda: None)
    place.delete("vq/model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        open_tokenizer(f"{place.url}/vq", Image(3), lambda: None)


def test_a_tokenizer_that_is_none_is_named(network, tmp_path):
    config = (network / "config.json").read_text()
    folders = {
        "unknown": {"config.json": config.replace("VQTokenizer", "TheirTokenizer").encode()},
        "broken": {"config.json": b"{"},
        "list": {"config.json": b"[]"},
    }
    said = {"unknown": "registers a tokenizer 'TheirTokenizer'", "broken": "isn't JSON", "list": "holds a list"}
    for name, files in folders.items():
        with pytest.raises(TokenizerError, match=said[name]):
            open_tokenizer(str(write_files(tmp_path / name, files)), Image(3), lambda: None)
    with pytest.raises(TokenizerError, match="a folder with"):
        open_tokenizer(str(network / "config.json"), Image(3), lambda: None)
    with pytest.raises(WeightsError, match="no such file or folder"):
        open_tokenizer(str(tmp_path / "nowhere"), Image(3), lambda: None)


def test_a_tokenizer_of_other_labels_is_refused(network):
    with pytest.raises(TokenizerError, match="was made for the kind"):
        open_tokenizer(str(network), Image(1, content="intensity"), lambda: None)
