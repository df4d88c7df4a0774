"""Exports for ml-4m, opened as its loader opens them: written from ../shared/facts/ml4m.md 3.1, 3.2 and 3.6 and checked
against the text of its unified_datasets.py and modality_transforms.py. ml-4m itself isn't at hand, and isn't run."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command import command
from in_process import weave
from PIL import Image
from tokenloom import Dataset, open_dataset
from tokenloom.labelers.contract.instances import InstanceSet
from tokenloom.pipeline.dataset.manifest import publish
from tokenloom.pipeline.plan.recipe import parse_recipe
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.use.ml4m_labels import WRITERS, Kept, upright
from tokenloom.training.use.pieces import ExportError, Source
from tokenloom.training.use.to_ml4m import Ml4m

CODES = {"name": "patch_codebook", "params": {"size": 4}}


def recipe(corpus: Path, output: Path, **more: Any):
    modalities = {
        "rgb": {"tokenizer": CODES, "keep": "both"},
        "caption": {"keep": "both"},
        "canny_edge": {"tokenizer": CODES},
        "color_palette": {"keep": "both"},
        "metadata": {"keep": "both"},
    }
    return parse_recipe(
        {"corpus": str(corpus), "output": str(output), "views": {"count": 2}, "modalities": modalities, **more}
    )


@pytest.fixture(scope="module")
def made(corpus, tmp_path_factory) -> tuple[Dataset, Path, str]:
    """A dataset of photographs, its export, and what the command said. One photograph has no caption, one is turned by
    its EXIF, one is a WebP and has a dot in its name."""
    folder = tmp_path_factory.mktemp("ml4m")
    photos = folder / "photos"
    photos.mkdir()
    for path in sorted(corpus.iterdir())[:8]:
        (photos / path.name).write_bytes(path.read_bytes())
    stems = sorted(path.stem for path in photos.glob("*.jpg"))
    assert len(stems) == 4
    (photos / f"{stems[0]}.txt").unlink()
    with Image.open(photos / f"{stems[1]}.jpg") as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(photos / f"{stems[1]}.jpg", exif=exif, quality=95)
    with Image.open(photos / f"{stems[2]}.jpg") as image:
        image.save(photos / f"{stems[2]}.x.webp", lossless=True)
    (photos / f"{stems[2]}.jpg").unlink()
    (photos / f"{stems[2]}.txt").rename(photos / f"{stems[2]}.x.txt")
    weave(recipe(photos, folder / "dataset"))
    ended = command("export", folder / "dataset", folder / "out", "--to", "ml-4m")
    assert ended.code == 0, ended.err
    return open_dataset(str(folder / "dataset")), folder / "out", ended.out


# --- ml-4m's loader, as far as it reads -------------------------------------------------------------------------------


def expand(data_path: str) -> Iterator[list[tuple[str, str]]]:
    """`[]` as ml-4m has it, `{..}` as webdataset has it: of each shard, folder and path of every modality."""
    folders, names = re.fullmatch(r".*/\[(.*)\]/(.*)", data_path).groups()  # type: ignore[union-attr]
    root = data_path.partition("/[")[0]
    first, last = re.search(r"\{(\d+)\.\.(\d+)\}", names).groups()  # type: ignore[union-attr]
    for number in range(int(first), int(last) + 1):
        shard = re.sub(r"\{.*\}", f"{number:0{len(first)}d}", names)
        yield [(folder, f"{root}/{folder}/{shard}") for folder in folders.split(",")]


def members(path: str) -> Iterator[tuple[str, str, bytes]]:
    """Key, extension and content, split where webdataset does."""
    with tarfile.open(path) as tar:
        for info in tar:
            key, extension = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", info.name).groups()  # type: ignore[union-attr]
            file = tar.extractfile(info)
            assert file is not None
            yield key, extension, file.read()


DECODERS = {
    "npy": lambda data: np.load(io.BytesIO(data), allow_pickle=False),
    "npz": lambda data: dict(np.load(io.BytesIO(data), allow_pickle=False)),
    "json": json.loads,
    "png": lambda data: Image.open(io.BytesIO(data)).convert("RGB"),
    "jpg": lambda data: Image.open(io.BytesIO(data)).convert("RGB"),
}


def read_all(out: Path) -> list[dict[str, Any]]:
    """Samples of the folder of which README.md gives the data_path: `multi_tarfile_samples`, decoded."""
    data_path = re.search(r"data_path: '(.*)'", (out / "README.md").read_text())[1]  # type: ignore[index]
    samples = []
    for shard in expand(data_path.replace("OUT", str(out))):
        for parts in zip(*(members(path) for _, path in shard), strict=True):
            assert len({key for key, _, _ in parts}) == 1
            sample: dict[str, Any] = {"__key__": parts[0][0]}
            for (folder, _), (_, extension, data) in zip(shard, parts, strict=True):
                sample[folder] = DECODERS[extension](data)
            samples.append(sample)
    return samples


# --- what it finds ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_folder_has_the_same_samples_and_what_lacks_a_modality_is_told(made):
    dataset, out, said = made
    keys = [row.key for row in dataset.iterate(["rgb"], views=[0])]
    lacking = {row.key for row in dataset.iterate(["caption"], views=[0]) if row.values["caption"] is None}
    assert len(lacking) == 1
    found = [sample["__key__"].replace("%2E", ".") for sample in read_all(out)]
    assert found == [key for key in keys if key not in lacking]
    assert any("." in key for key in found)
    assert "2 rows left out: ml-4m needs every modality of a sample, and it lacks caption" in said
    assert "6 rows of rgb, caption, canny_edge, color_palette, metadata in 7 files" in said


def test_tokens_are_int16_by_crop(made):
    dataset, out, said = made
    for sample in read_all(out):
        key = sample["__key__"].replace("%2E", ".")
        for name, folder in (("rgb", "tok_rgb@224"), ("canny_edge", "tok_canny_edge@224")):
            assert sample[folder].dtype == np.int16
            assert sample[folder].shape == (2, 196)
            for view in range(2):
                np.testing.assert_array_equal(sample[folder][view], dataset.get(key, view).values[name])
    assert "doesn't know" not in said
    assert "MODALITY_INFO says" not in said
    assert "metadata: ml-4m takes that of view 0" in said


def test_crop_settings_cut_the_views_out_of_the_pixels(made):
    """As PreTokenizedImageAugmenter does: row r crops the image, resizes it, and mirrors it."""
    dataset, out, _ = made
    labels = {(row.key, row.view): row.values["rgb"] for row in dataset.iterate(["rgb"], labels=True)}
    for sample in read_all(out):
        settings = sample["crop_settings"]
        assert settings.shape == (2, 5)
        assert np.issubdtype(settings.dtype, np.integer)
        for view, (top, left, height, width, hflip) in enumerate(settings):
            cut = sample["rgb"].crop((left, top, left + width, top + height)).resize((224, 224))
            cut = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if hflip else cut
            expected = labels[sample["__key__"].replace("%2E", "."), view]
            assert np.abs(np.asarray(cut, int) - expected).mean() < 6  # other filters; turned or mirrored it is over 30
        assert settings[0].tolist()[4] == 0


def test_labels_are_as_its_transforms_read_them(made):
    dataset, out, _ = made
    for sample in read_all(out):
        key = sample["__key__"].replace("%2E", ".")
        names = ["caption", "color_palette", "metadata"]
        rows = [dataset.get(key, view, names, labels=True).values for view in range(2)]
        assert sample["caption"] == [row["caption"] for row in rows]
        assert sample["color_palette"] == [row["color_palette"] for row in rows]
        assert sample["color_palette"][0].keys() <= set("1234567")
        assert sample["metadata"] == rows[0]["metadata"]
        assert sample["metadata"]["original_width"] == sample["rgb"].width
        assert {type(value) for value in sample["metadata"].values()} <= {int, float}


def test_detections_and_embeddings(made):
    def write(name: str, label: Any) -> tuple[str, bytes]:
        return WRITERS[name](Kept(made[0].manifest.modalities["caption"], [label, label], [], None))

    boxes = np.array([[0, 0.25, 0.5, 1]], np.float32)
    found = InstanceSet(boxes, ("dog",), np.array([0.75], np.float32))
    extension, data = write("det", found)
    expected = {"instances": [{"boxes": [0, 0.25, 0.5, 1], "class_name": "dog", "score": 0.75}]}
    assert DECODERS[extension](data) == expected
    emb = np.arange(6, dtype=np.float16).reshape(2, 3)
    extension, data = write("t5_caption", emb)
    read = DECODERS[extension](data)
    assert extension == "npz"
    assert read["emb"].dtype == np.float32
    assert read["emb"].shape == (1, 2, 3)
    np.testing.assert_array_equal(read["emb"][read["mask_valid"]], emb)
    assert read["mask_valid"].tolist() == [[True, True]]
    assert data == write("t5_caption", emb)[1]


def test_images_that_it_reads_upright_stay_as_they_are(photos):
    for photo in photos.values():
        assert upright(photo) == ("jpg", photo)


def test_a_piece_without_a_receipt_is_made_to_the_same_bytes(made):
    dataset, out, _ = made
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "receipts/00000.json").unlink()
    (out / "caption/shard-00000.tar").unlink()
    assert command("export", dataset.store.url, out, "--to", "ml-4m").code == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


# --- what is refused --------------------------------------------------------------------------------------------------


def changed(dataset: Dataset, name: str, **spec: Any) -> None:
    """Publishes another spec of a modality's tokens."""
    manifest = dataset.manifest
    card = manifest.modalities[name]
    assert card.tokens
    assert card.tokens.spec
    tokens = replace(card.tokens, spec=replace(card.tokens.spec, **spec))
    cards = {**manifest.modalities, name: replace(card, tokens=tokens)}
    publish(dataset.store, lambda now: replace(manifest, modalities=cards))


@pytest.fixture
def own(made, tmp_path) -> Dataset:
    """A copy of the dataset, for one test."""
    for entry in made[0].store.list():
        Store(tmp_path / "dataset").create(entry.name, made[0].store.read(entry.name))
    return open_dataset(tmp_path / "dataset")


def test_a_vocabulary_past_int16(own, tmp_path):
    changed(own, "rgb", vocabulary=2**15)
    ended = command("export", own.store.url, tmp_path / "fits", "--to", "ml-4m")
    assert "tok_rgb@224: it has 196 tokens of 32768 ids, and ml-4m's MODALITY_INFO says 196 of 16384" in ended.out
    changed(own, "rgb", vocabulary=2**15 + 1)
    ended = command("export", own.store.url, tmp_path / "out", "--to", "ml-4m")
    assert ended.code == 2
    assert "rgb has 32769 ids, and ml-4m holds tokens as int16: give it a tokenizer of at most 32768" in ended.err
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    names = [word for name in ("canny_edge", "caption") for word in ("--modality", name)]
    assert command("export", own.store.url, tmp_path / "out", "--to", "ml-4m", *names).code == 0


def test_labels_that_arent_kept(own, tmp_path):
    manifest = own.manifest
    card = replace(manifest.modalities["caption"], keeps_labels=False)
    publish(own.store, lambda now: replace(manifest, modalities={**manifest.modalities, "caption": card}))
    ended = command("export", own.store.url, tmp_path / "out", "--to", "ml-4m", "--modality", "caption")
    assert ended.code == 2
    assert "caption can't be exported to ml-4m: ml-4m tokenises it itself" in ended.err
    ended = command("export", own.store.url, tmp_path / "out", "--to", "ml-4m")
    assert ended.code == 0
    assert "caption is left out: ml-4m tokenises it itself" in ended.out
    assert "8 rows of rgb, canny_edge" in ended.out  # none lacks a caption now


def test_a_corpus_that_moved_is_missed_before_any_work_and_found_where_a_run_says(own, made, tmp_path, monkeypatch):
    photos = made[1].parent / "photos"
    words = ("export", own.store.url, tmp_path / "out", "--to", "ml-4m")
    photos.rename(tmp_path / "moved")
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Ml4m, "make", lambda *_: pytest.fail("work was begun"))
            ended = command(*words)
        assert ended.code == 2
        assert "does not exist" in ended.err
        advice = f"tokenloom run RECIPE --corpus NEW_PLACE --output {own.store.url}"
        assert f"`{advice}`" in ended.err
        assert ended.err.count("\n") == 1
        weave(recipe(tmp_path / "moved", Path(own.store.url)))
        assert command(*words).code == 0
        photos.symlink_to(tmp_path / "nowhere")  # what is there needs no corpus
        (tmp_path / "moved").rename(tmp_path / "moved again")
        assert command(*words).code == 0
    finally:
        photos.unlink(missing_ok=True)
        next(tmp_path.glob("moved*")).rename(photos)


def test_nothing_is_left_where_every_sample_lacks_a_modality(photos, tmp_path):
    (tmp_path / "photos").mkdir()
    for key, photo in list(photos.items())[:2]:
        (tmp_path / f"photos/{key}.jpg").write_bytes(photo)
    weave(recipe(tmp_path / "photos", tmp_path / "dataset"))
    for _ in range(2):
        ended = command("export", tmp_path / "dataset", tmp_path / "out", "--to", "ml-4m")
        assert ended.code == 2
        assert "every one lacks caption: nothing is left of it. Export to another folder without it" in ended.err
        assert ended.err.count("\n") == 1
        assert not (tmp_path / "out/README.md").exists()
    words = " ".join(re.findall(r"--modality \w+", ended.err)).split()
    assert words[1::2] == ["rgb", "canny_edge", "color_palette", "metadata"]
    other = command("export", tmp_path / "dataset", tmp_path / "other", "--to", "ml-4m", *words)
    assert other.code == 0
    assert "4 rows of rgb, canny_edge" in other.out
    alone = command("export", tmp_path / "dataset", tmp_path / "alone", "--to", "ml-4m", "--modality", "caption")
    assert alone.code == 2
    assert "--modality" not in alone.err


@pytest.mark.parametrize("name", ["my-edges", "edges@2"])
def test_names_that_a_list_of_domains_cant_hold(own, tmp_path, name):
    manifest = own.manifest
    cards = {**manifest.modalities, name: manifest.modalities["canny_edge"]}
    publish(own.store, lambda now: replace(manifest, modalities=cards))
    ended = command("export", own.store.url, tmp_path / "out", "--to", "ml-4m")
    assert ended.code == 0, ended.err
    assert f"{name} is left out: ml-4m joins names of modalities by - and cuts them at @" in ended.out
    named = command("export", own.store.url, tmp_path / "other", "--to", "ml-4m", "--modality", name)
    assert named.code == 2
    assert f"{name} can't be exported to ml-4m: " in named.err


def test_two_modalities_that_have_one_name_in_ml4m(own):
    card = own.manifest.modalities["canny_edge"]
    reader: Any = SimpleNamespace(cards={"semseg": card, "semseg_coco": card, "rgb": card}, store=own.store)
    with pytest.raises(ExportError, match="semseg and semseg_coco are both tok_semseg@224 to ml-4m"):
        Ml4m().check(Source(reader, own.manifest, ("semseg", "semseg_coco", "rgb")))
    Ml4m().check(Source(reader, own.manifest, ("semseg_coco", "rgb")))
