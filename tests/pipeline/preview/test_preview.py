"""The preview: what is shown, that nothing of it is markup, and that it stays light."""

from __future__ import annotations

import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from galleries import HOSTILE, HOSTILE_KEY, cards_of, gallery_of, overview_of, weave_photos, without_corpus
from hypothesis import given
from hypothesis import strategies as st
from small_dataset import SmallDataset, write_dataset
from tokenloom.labelers.contract.kinds import Image
from tokenloom.pipeline.dataset.finished import Finished
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.engine.commit import UnitWriter
from tokenloom.pipeline.engine.labeling import Result
from tokenloom.pipeline.preview.cells import CellMaker, Pictures, readable, said, to_webp
from tokenloom.pipeline.preview.preview import GALLERY, write_preview
from tokenloom.pipeline.preview.survey import made_randomly
from tokenloom.pipeline.views.content import Content, ContentReader
from tokenloom.pipeline.views.view_pixels import Seen, ViewFinder
from tokenloom.tokenizers.codebooks.codebook import PatchCodebook, PatchParams
from tokenloom.tokenizers.measures.reconstruction import ErrorSum

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photo_dataset(photos, tmp_path_factory) -> Path:
    return weave_photos(tmp_path_factory.mktemp("woven"), photos)


@pytest.fixture(scope="module")
def photo_gallery(photo_dataset) -> Path:
    return write_preview(str(photo_dataset)).parent


@pytest.fixture
def small(tmp_path) -> SmallDataset:
    """Four modalities in two views of 16 samples, with a refused sample and a failed label."""
    return without_corpus(write_dataset(tmp_path / "dataset"), tmp_path)


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_every_view_has_a_card_with_all_modalities(small, tmp_path):
    gallery = gallery_of(small, tmp_path)
    keys = [(key, view) for unit in small.units for key in small.keys[unit] for view in (0, 1)]
    assert [(card["key"], card["view"]) for card in cards_of(gallery)] == keys
    assert [tuple(card) for card in overview_of(gallery)["cards"]] == keys
    assert all(list(card["cells"]) == list(small.manifest.modalities) for card in cards_of(gallery))


def test_labels_tokens_and_what_they_decode_to_are_shown(small, tmp_path):
    card = cards_of(gallery_of(small, tmp_path))[0]
    key = card["key"]
    caption, palette, dinov2 = (card["cells"][name] for name in ("caption", "color_palette", "dinov2"))
    assert caption["label"] == caption["decoded"] == {"text": small.labels["caption"][key, 0]}
    assert len(caption["tokens"]["pieces"]) == len(caption["tokens"]["ids"])
    assert caption["tokens"]["pieces"][0] == caption["label"]["text"].split()[0]
    label = small.labels["color_palette"][key, 0]
    assert palette["label"] == palette["decoded"] == {"palettes": list(label.values())}
    assert list(dinov2) == ["decoded", "tokens"]
    assert len(dinov2["tokens"]["ids"]) == 9
    assert to_webp(np.zeros((8, 8, 3), np.uint8))[8:12] == b"WEBP"


def test_a_missing_and_a_failed_label_say_so(small, tmp_path):
    cards = {(card["key"], card["view"]): card["cells"] for card in cards_of(gallery_of(small, tmp_path))}
    key = small.keys[small.units[0]][0]
    failed = {"state": "failed", "error": "ValueError", "note": "the palette is empty"}
    assert cards[key, 1]["color_palette"] == failed
    assert "state" not in cards[key, 0]["color_palette"]
    without = [cell["caption"] for (key, _), cell in cards.items() if key.endswith("3")]
    assert without == [{"state": "missing"}] * len(without)
    assert without


def test_what_is_not_made_or_not_readable_says_so(small, tmp_path):
    first, second, *_ = small.units
    Path(small.store.url, small.token_path("dinov2", first)).unlink()
    small.store.replace(small.token_path("caption", second), b"no Parquet")
    cards = cards_of(gallery_of(small, tmp_path))
    unmade = [card["cells"]["dinov2"] for card in cards if card["unit"] == first.name]
    assert unmade == [{"state": "unread", "note": "not made yet"}] * 8
    broken = {card["cells"]["caption"]["note"] for card in cards if card["unit"] == second.name}
    assert len(broken) == 1
    assert "tokenloom verify" in broken.pop()
    assert len(cards) == 32


def test_labels_of_whole_images_are_shown_whole_where_the_crop_is_unknown(small, tmp_path):
    assert all(card["cells"]["canny_edge"]["label"]["whole"] for card in cards_of(gallery_of(small, tmp_path)))


def test_views_come_from_the_corpus_where_it_is_in_reach(photo_gallery, photos):
    cards = {card["key"]: card for card in cards_of(photo_gallery)}
    assert len(cards) == len(photos) + 2
    broken = cards.pop("broken")
    assert (broken["image"], broken["origin"]) == (None, "")
    assert broken["cells"]["canny_edge"]["error"] == "BadImage"
    assert {card["origin"] for card in cards.values()} == {"corpus"}
    assert all("whole" not in card["cells"]["canny_edge"]["label"] for card in cards.values())
    assert all((photo_gallery / card["image"]).stat().st_size > 500 for card in cards.values())


def test_a_corpus_out_of_reach_is_named(small, tmp_path):
    gallery = gallery_of(small, tmp_path)
    assert str(tmp_path / "gone") in overview_of(gallery)["problem"]
    assert overview_of(gallery)["origins"] == {"": 32}


def test_views_come_from_the_labels_of_rgb_first(photos, tmp_path):
    dataset = weave_photos(tmp_path, photos, "rgb")
    shutil.rmtree(tmp_path / "photos")
    gallery = write_preview(str(dataset), tmp_path / "gallery").parent
    assert overview_of(gallery)["origins"] == {"labels": len(photos) + 1, "": 1}


def test_views_are_decoded_from_the_tokens_of_rgb_at_last(small, tmp_path):
    """The mean colour of a view whose patches are of one colour each comes back."""
    kind = Image(3)
    card = replace(
        small.manifest.modalities["dinov2"], kind=kind.describe(), on="view", keeps_labels=False, keeps_tokens=True
    )
    tokenizer = PatchCodebook(kind, PatchParams(size=4, patch_size=56))
    colours = np.repeat([[200, 30, 30], [30, 30, 200]], 4, axis=0).astype(np.uint8)
    labels = [np.broadcast_to(colour, (224, 224, 3)).copy() for colour in colours]
    tokenizer.fit(labels, 0)
    assert card.tokens is not None
    card = replace(card, tokens=replace(card.tokens, spec=tokenizer.spec))
    manifest = replace(small.manifest, modalities={**small.manifest.modalities, "rgb": card})
    unit = small.units[0]
    keys = small.keys[unit]
    UnitWriter(small.store, unit, keys, 2).commit("rgb", card, Result([*tokenizer.encode(labels)]))
    finder = ViewFinder(manifest, {"rgb": tokenizer})
    seen = finder.find(unit, keys, [1, 3], ContentReader(small.store, manifest, {"rgb": Finished(frozenset({unit}))}))
    assert list(seen) == [(1, 0), (1, 1), (3, 0), (3, 1)]
    assert {one.origin for one in seen.values()} == {"tokens"}
    for place, one in zip((2, 3, 6, 7), seen.values(), strict=True):
        assert np.abs(one.pixels.mean((0, 1)) - colours[place]).max() < 25


def test_a_reconstruction_beside_its_label_has_its_errors(small, tmp_path):
    """As `errors` tells them, with units; a modality that keeps no labels has none."""
    gallery = gallery_of(small, tmp_path)
    kind = small.manifest.modalities["color_palette"].label_kind
    first, *_ = cards_of(gallery)
    assert first["cells"]["color_palette"]["errors"] == [
        ["exact", "100.0 %", "share of labels that come back whole; of texts, less case and accents; higher is better"],
        ["fields", "100.0 %", "share of fields that come back as they were; higher is better"],
        ["numbers", "0 %", "mean relative difference of numbers; lower is better"],
    ]
    assert "errors" not in first["cells"]["dinov2"]
    assert "errors" not in first["cells"]["canny_edge"]
    sums = ErrorSum(kind)
    for label in small.labels["color_palette"].values():
        if label is not None:
            sums.add(label, label)
    means = {one["name"]: one["errors"] for one in overview_of(gallery)["modalities"]}
    assert means["color_palette"] == {"labels": 31, "means": [list(one) for one in said(sums.means())]}
    assert means["dinov2"] == {"labels": 0, "means": []}


def rgb_cells(
    small: SmallDataset, tmp_path: Path, origin: str, decoded_size: int = 224
) -> tuple[CellMaker, list[dict]]:
    """The cells of two views whose pixels came from `origin`; all that rgb keeps is tokens."""
    kind = Image(3)
    card = replace(small.manifest.modalities["color_palette"], kind=kind.describe(), keeps_labels=False)
    tokenizer = PatchCodebook(kind, PatchParams(size=2, patch_size=56, sample=1000))
    labels = [np.full((decoded_size, decoded_size, 3), grey, np.uint8) for grey in (40, 200)]
    tokenizer.fit([label for label in labels for _ in range(4)], 0)
    manifest = replace(small.manifest, modalities={"rgb": card})
    maker = CellMaker(manifest, {"rgb": tokenizer}, Pictures(tmp_path / "gallery"))
    pixels = [np.full((224, 224, 3), grey, np.uint8) for grey in (40, 210)]
    seen = {(0, view): Seen(pixels[view], origin, None) for view in (0, 1)}
    return maker, list(maker.cells("rgb", Content(["a"], tokenizer.encode(labels)), seen, [0, 1]))


def test_the_views_pixels_are_the_label_of_rgb(small, tmp_path):
    maker, (first, second) = rgb_cells(small, tmp_path, "corpus")
    assert first["label"] == {"picture": "pictures/0000/000000-view.webp"}
    assert first["errors"][0][:2] == ("PSNR", "100.0 dB")
    assert second["errors"][0][:2] == ("PSNR", "28.1 dB")  # 10 of 255: 20 log10(25.5)
    assert maker.errors["rgb"].means()["psnr"] == pytest.approx((100 + 20 * np.log10(25.5)) / 2)


def test_pixels_decoded_from_tokens_are_no_label(small, tmp_path):
    maker, cells = rgb_cells(small, tmp_path, "tokens")
    assert [list(cell) for cell in cells] == [["decoded", "tokens"]] * 2
    assert maker.errors["rgb"].labels == 0


def test_what_cannot_be_compared_says_why(small, tmp_path):
    _, (first, _) = rgb_cells(small, tmp_path, "corpus", decoded_size=112)
    assert "the shape (112, 112, 3), its label (224, 224, 3)" in first["incomparable"]
    assert "errors" not in first


def test_statistics_count_what_the_dataset_holds(small, tmp_path):
    overview = overview_of(gallery_of(small, tmp_path))
    caption, palette, dinov2, edges = overview["modalities"]
    without = sum(label is None for label in small.labels["caption"].values()) * 2
    assert (caption["made"], caption["missing"], caption["failed"]) == (32 - without, without, 0)
    assert (palette["made"], palette["missing"], palette["failed"]) == (31, 0, 1)
    assert dinov2["codes"]["tokens"] == 32 * 9
    assert 1 <= dinov2["codes"]["perplexity"] <= dinov2["codes"]["used"] <= dinov2["tokens"]["vocabulary"]
    assert sum(rows for *_, rows in caption["lengths"]) == 32 - without
    assert dict(caption["codes"]["frequent"])["number"] == 32 - without
    assert "codes" not in edges
    assert dinov2["weights"]["licence"] == "Apache-2.0"
    assert [modality["generation"] for modality in overview["modalities"]] == [
        card.generation for card in small.manifest.modalities.values()
    ]


def test_the_quarantine_is_listed(small, tmp_path):
    quarantine = overview_of(gallery_of(small, tmp_path))["quarantine"]
    assert quarantine["total"] == 2
    assert sorted(quarantine["counts"]) == [["color_palette", "ValueError", 1], ["corpus", "BadImage", 1]]
    assert quarantine["failures"][0]["key"] == "broken⟨U+001B⟩[31m.jpg"


def test_random_weights_and_what_is_made_from_them_are_told(small):
    cards = dict(small.manifest.modalities)
    assert made_randomly(cards) == set()
    assert cards["dinov2"].weights
    cards["dinov2"] = replace(cards["dinov2"], weights=replace(cards["dinov2"].weights, source="tiny"))
    cards["canny_edge"] = replace(cards["canny_edge"], requires={"dinov2": "f"})
    cards["caption"] = replace(cards["caption"], requires={"canny_edge": "f"})
    assert made_randomly(cards) == {"dinov2", "canny_edge", "caption"}


# --- nothing is markup ------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """Scripts, links and inline code of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.inline: list[str] = []
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._tag = tag
        self.references += [value for name, value in attrs if value and name in ("src", "href")]
        self.inline += [name for name, _ in attrs if name.startswith("on") or name == "style"]

    def handle_data(self, data):
        if self._tag in ("script", "style") and data.strip():
            self.inline.append(data)


def test_the_page_is_the_packages_own_and_refers_to_its_folder_alone(photo_gallery):
    for path in GALLERY.iterdir():
        assert (photo_gallery / path.name).read_bytes() == path.read_bytes()
    page = _Page((photo_gallery / "index.html").read_text())
    assert page.inline == []
    assert "gallery.js" in page.references
    assert [name for name in page.references if not (photo_gallery / name).is_file()] == []


def test_scripts_write_no_markup():
    scripts = "".join(path.read_text() for path in GALLERY.glob("*.js"))
    assert [word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(")
            if word in scripts] == []  # fmt: skip


def test_hostile_text_stays_text(photo_gallery):
    for path in (photo_gallery / "data").iterdir():
        assert "<" not in path.read_text(encoding="ascii")
    card = next(card for card in cards_of(photo_gallery) if "coffee" in card["key"] and card["key"] != "coffee")
    assert card["key"] == HOSTILE_KEY
    assert card["cells"]["caption"]["label"]["text"] == HOSTILE.replace("\u202e", "⟨U+202E⟩")


@given(st.text(), st.integers(1, 50))
def test_readable_text_is_short_and_holds_no_unseen_sign(text, longest):
    shown = readable(text, longest)
    assert not any(sign in shown for sign in "\x00\x1b\x7f\u202e\u2066\ufeff")
    shown.encode()
    assert len(shown) <= 8 * longest + 40
    if len(text) <= longest and text.isprintable():
        assert shown == text


def test_readable_keeps_plain_text_and_cuts_long_text():
    plain = "two\nlines\t\u0645\u0631\u062d\u0628\u0627 \U0001f680"
    assert readable(plain, 100) == plain
    assert readable("\x07\ud800", 100) == "⟨U+0007⟩⟨U+D800⟩"
    assert readable("x" * 1_000_000, 10) == "xxxxxxxxxx … (1,000,000 characters)"


# --- where it is written ----------------------------------------------------------------------------------------------


def test_a_dataset_that_holds_no_sample_has_no_gallery(small, tmp_path):
    for name in small.manifest.modalities:
        shutil.rmtree(tmp_path / "dataset" / name)
    with pytest.raises(DatasetError, match="holds no samples to look at; `tokenloom status` says how far it is"):
        write_preview(small.store.url)
    assert not (tmp_path / "dataset-preview").exists()


def test_a_gallery_lies_beside_its_dataset_and_never_in_it(small, tmp_path):
    assert write_preview(small.store.url) == tmp_path / "dataset-preview" / "index.html"
    for output in ("dataset", "dataset/preview"):
        with pytest.raises(DatasetError, match="can't lie in the dataset"):
            write_preview(small.store.url, tmp_path / output)
    with pytest.raises(DatasetError, match="local folder"):
        write_preview(small.store.url, "s3://bucket/gallery")


def test_other_files_are_not_replaced(small, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    with pytest.raises(DatasetError, match="something else"):
        write_preview(small.store.url, tmp_path / "notes")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep me"


def test_the_last_gallery_stays_until_the_next_is_finished(small, tmp_path):
    gallery = gallery_of(small, tmp_path)
    before = (gallery / "data/overview.js").read_bytes()

    def stop(done, units):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_preview(small.store.url, gallery, watch=stop)
    assert (gallery / "data/overview.js").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "gallery"]
    gallery_of(small, tmp_path, limit=2)
    assert len(cards_of(gallery)) == 2


def test_datasets_in_object_storage_are_read(place, tmp_path):
    small = without_corpus(write_dataset(f"{place.url}/dataset"), tmp_path)
    seen = []
    index = write_preview(small.store.url, tmp_path / "gallery", watch=lambda done, units: seen.append((done, units)))
    assert len(cards_of(index.parent)) == 32
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
