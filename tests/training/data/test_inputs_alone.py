"""Pixels and embeddings in a training recipe: asked for by name, seen, never said, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenloom.labelers.contract import images
from tokenloom.pipeline.dataset.cards import WeightsCard
from tokenloom.pipeline.dataset.manifest import DatasetError, read_manifest
from tokenloom.pipeline.plan.recipe_file import RecipeError
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.data.batches import Batches
from tokenloom.training.data.loader import TrainingBatches
from tokenloom.training.data.opening import OpenData, open_data
from tokenloom.training.data.recipe import TrainingRecipe
from tokenloom.training.data.schemes import left_out, named_schemes
from torch.utils.data import DataLoader
from training_recipes import illustrated, noise, refusal, run_command, written
from weaving import write_manifest

INPUTS = ["pixels", "corners", "caption"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("illustrated")
    illustrated(folder, noise())
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """One to damage."""
    shutil.copytree(made / "corpus", tmp_path / "corpus")
    shutil.copytree(made / "out", tmp_path / "out")
    store = Store(tmp_path / "out")
    manifest = read_manifest(store)
    assert manifest
    corpus = replace(manifest.corpus, root=str(tmp_path / "corpus"), url=[str(tmp_path / "corpus")])
    write_manifest(store, replace(manifest, corpus=corpus))
    return tmp_path


def wanted(folder: Path, dataset: dict[str, Any] | None = None, **data: Any) -> TrainingRecipe:
    one = {"url": str(folder / "out"), "inputs": INPUTS, **(dataset or {})}
    small = {"masking": "all2all", "input_tokens": 12, "target_tokens": 12, "batch_size": 8}
    return written(folder / "train.yaml", {"data": {"datasets": {"a": one}, **small, **data}})


def opened(folder: Path, dataset: dict[str, Any] | None = None, **data: Any) -> OpenData:
    return open_data(wanted(folder, dataset, **data))


def test_they_are_asked_for_by_name_and_are_inputs_alone(made):
    data = opened(made)
    batch = next(iter(Batches(data.mixture, 64)))
    seen, said = (
        {batch.modalities[place] for place in set(side.modality.ravel().tolist()) - {-1}}
        for side in (batch.inputs, batch.targets)
    )
    assert seen == set(INPUTS)
    assert said == {"caption", "mean_colour"}
    assert batch.arrays["pixels"].shape == (64, 32, 32, 3)
    assert batch.arrays["corners"].shape == (64, 3, 4)
    assert batch.arrays["pixels"].any(axis=(1, 2, 3)).sum() == 56  # one of the eight can't be read
    assert not batch.skipped.any()
    assert set(opened(made, {"inputs": None}).mixture.modalities) == {"caption", "mean_colour"}


@pytest.mark.parametrize(("masking", "told"), [("rgb2all", True), ("4m21", True), ("all2all", False)])
def test_a_dataset_without_rgb_beside_one_that_has_it_is_told(made, masking, told):
    both = {
        "a": {"url": str(made / "out"), "inputs": ["pixels"], "targets": ["mean_colour"]},
        "b": {"url": str(made / "out"), "inputs": ["caption"], "targets": ["mean_colour"]},
    }
    small = {"masking": masking, "input_tokens": 2, "target_tokens": 2}
    notes = open_data(written(made / "both.yaml", {"data": {"datasets": both, **small}})).notes
    about = [note for note in notes if "has no rgb" in note]
    assert about == ["b: has no rgb; where all inputs are to be rgb, they are drawn from what it has"] * told


def test_4m_draws_targets_for_embeddings_and_loses_them(made):
    """Not where a recipe says what the targets are."""
    share = [
        next(iter(Batches(opened(made, one, target_tokens=3).mixture, 512))).targets.used.mean()
        for one in ({}, {"targets": ["caption", "mean_colour"]})
    ]
    assert share[0] < share[1] - 0.1


def test_schemes_by_name_are_4ms_with_pixels(shared):
    golden = json.loads((shared / "golden/masking_stats.json").read_text())
    ours = {"rgb@224": "pixels", "tok_rgb@224": "rgb"}
    facts: dict[str, Any] = {ours.get(str(name), str(name)): one for name, one in golden["modalities"].items()}
    for place, scheme in enumerate(named_schemes("4m21", list(facts))):
        for name, fact in facts.items():
            assert scheme.inputs[name] == fact["input_alphas"][place]
            assert scheme.targets.get(name, 0.0) == fact["target_alphas"][place]
    assert left_out("rgb2all", ["pixels", "depth"]) == []


def joined(batches: list[dict[str, Any]]) -> dict[str, bytes]:
    flat = [{**one["inputs"], **one["arrays"], "skipped": one["skipped"]} for one in batches]
    return {name: torch.cat([one[name] for one in flat]).numpy().tobytes() for name in flat[0]}


def in_turn(recipe: TrainingRecipe, ranks: int, workers: int, steps: int) -> list[dict[str, Any]]:
    streams: list[Iterator[Any]] = [
        iter(DataLoader(TrainingBatches(recipe, rank, ranks), batch_size=None, num_workers=workers))
        for rank in range(ranks)
    ]
    return [next(stream) for _ in range(steps) for stream in streams]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_same_for_any_ranks_and_workers(made):
    recipe = wanted(made)
    expected = joined(in_turn(recipe, 1, 0, 4))
    assert {"pixels", "corners"} < set(expected)
    assert joined(in_turn(recipe, 2, 0, 4)) == joined(in_turn(recipe, 1, 2, 4)) == expected


def test_a_state_is_of_what_is_seen(made, folder):
    state = TrainingBatches(wanted(made)).state_dict()
    for one, more in (
        ({"inputs": INPUTS[1:]}, {}),
        ({"inputs": [INPUTS[0]]}, {}),
        ({}, {"max_tokens": {"caption": 4}}),
    ):
        assert TrainingBatches(wanted(made, one, **more)).state_dict()["masking"] != state["masking"]
    manifest = read_manifest(Store(folder / "out"))
    assert manifest
    write_manifest(Store(folder / "out"), replace(manifest, views={**manifest.views, "size": 48}))
    assert TrainingBatches(wanted(folder)).state_dict()["masking"] != state["masking"]


def test_texts_are_cut_where_a_recipe_says_so(made):
    data = opened(made, {"inputs": ["caption"], "targets": ["caption"]}, max_tokens={"caption": 3})
    batch = next(iter(Batches(data.mixture, 64)))
    assert batch.most == (3,)
    assert batch.inputs.used.sum(axis=1).max() <= 3


# --- what is refused --------------------------------------------------------------------------------------------------


def lose_the_corpus(folder: Path) -> None:
    shutil.rmtree(folder / "corpus")


def lose_the_first_picture(folder: Path) -> None:
    (folder / "corpus/0.png").unlink()


def change_the_manifest(folder: Path, **changes: Any) -> None:
    store = Store(folder / "out")
    manifest = read_manifest(store)
    assert manifest
    write_manifest(store, replace(manifest, **changes))


def keep_no_labels(folder: Path) -> None:
    manifest = read_manifest(Store(folder / "out"))
    assert manifest
    corners = replace(manifest.modalities["corners"], keeps_labels=False)
    change_the_manifest(folder, modalities={**manifest.modalities, "corners": corners})


def be_of_texts(folder: Path) -> None:
    manifest = read_manifest(Store(folder / "out"))
    assert manifest
    change_the_manifest(folder, corpus=replace(manifest.corpus, reading={"format": "jsonl", "text": "text"}))


def have_odd_views(folder: Path) -> None:
    change_the_manifest(folder, views={"size": 40, "count": 1})


@pytest.mark.parametrize(
    ("damage", "dataset", "said"),
    [
        (None, {"targets": ["pixels"]}, "a.targets: pixels have no tokens, and can be an input alone; leave them out"),
        (None, {"targets": ["corners"]}, "a.targets: corners have no tokens, and can be an input alone"),
        (None, {"inputs": ["pixel"]}, "a.inputs: the dataset has no modality 'pixel' (did you mean 'pixels'?)"),
        (lose_the_corpus, {}, "put it back, or leave pixels out"),
        (lose_the_first_picture, {}, "put it back, or leave pixels out"),
        (
            keep_no_labels,
            {},
            "a.inputs: corners are embeddings, and the dataset keeps no labels of them; `keep: labels`",
        ),
        (be_of_texts, {"inputs": ["pixels"]}, "out is of texts, without pictures: leave pixels out"),
        (have_odd_views, {}, "a.inputs: pixels come in patches of 16 x 16, and its views have 40"),
    ],
)
def test_what_can_not_be_had_is_refused(folder, capsys, damage, dataset, said):
    if damage:
        damage(folder)
    wanted(folder, dataset)
    line = refusal(folder / "train.yaml", capsys)
    assert line.startswith(f"tokenloom: {folder / 'train.yaml'}:")
    assert said in line


@pytest.mark.parametrize(
    "change", [{"labeler": "Edges"}, {"weights": WeightsCard("other", "0" * 64, "")}, {"kind": {}}]
)
def test_embeddings_of_two_models_are_not_mixed(made, folder, capsys, change):
    """Whatever tells them apart: labeler, weights, or their shape."""
    manifest = read_manifest(Store(folder / "out"))
    assert manifest
    corners = manifest.modalities["corners"]
    told = {"kind": {**corners.kind, "dim": 8}} if "kind" in change else change
    change_the_manifest(folder, modalities={**manifest.modalities, "corners": replace(corners, **told)})
    both = {name: {"url": str(one / "out"), "inputs": INPUTS} for name, one in (("a", made), ("b", folder))}
    wanted(folder, datasets=both, broken="skip")  # the shards are those of the other card
    line = refusal(folder / "train.yaml", capsys)
    assert "data.datasets.b.inputs: corners are of another model than in the other datasets; leave them out" in line


def test_lengths_are_for_texts_of_the_mixture(made, capsys):
    with pytest.raises(RecipeError, match=r"data\.max_tokens\.corners: 4: it takes texts, here caption"):
        opened(made, max_tokens={"corners": 4})
    with pytest.raises(RecipeError, match=r"data\.max_tokens\.caption: input should be greater than or equal to 1"):
        opened(made, max_tokens={"caption": 0})


def empty_the_first_picture(folder: Path) -> None:
    (folder / "corpus/0.png").write_bytes(b"")


def lose_a_later_picture(folder: Path) -> None:
    (folder / "corpus/7.png").unlink()


@pytest.mark.parametrize(
    "damage", [lose_the_corpus, lose_the_first_picture, empty_the_first_picture, lose_a_later_picture]
)
def test_pixels_that_are_gone_are_skipped_whichever_they_are(folder, damage, caplog):
    damage(folder)
    data = opened(folder, broken="skip")
    batch = data.mixture.batch(np.arange(64))
    lacks = batch.skipped[:, batch.modalities.index("pixels")]
    assert lacks.any()
    assert batch.skipped.sum() == lacks.sum()
    assert "masked in" in caplog.text
    told = [note for note in data.notes if "put it back, or leave pixels out; until then they are masked" in note]
    assert len(told) == (damage != lose_a_later_picture)


# --- what can't be read -----------------------------------------------------------------------------------------------


def cut_the_labels(folder: Path) -> None:
    (path,) = (folder / "out/corners").rglob("*.tar")
    path.write_bytes(path.read_bytes()[:700])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("damage", "lacking"), [(cut_the_labels, "corners"), (lose_the_corpus, "pixels")])
def test_what_is_skipped_is_counted_in_workers_too(folder, damage, lacking):
    dataset = TrainingBatches(wanted(folder, broken="skip"))
    damage(folder)
    batches = list(islice(DataLoader(dataset, batch_size=None, num_workers=1), 3))
    told = torch.cat([batch["skipped"] for batch in batches]).sum(dim=0)
    place = dataset.modalities.index(lacking)
    assert told.tolist() == [24 if at == place else 0 for at in range(len(dataset.modalities))]
    assert not any((batch["inputs"]["modality"] == place).any() for batch in batches)


# --- decoding ---------------------------------------------------------------------------------------------------------


def test_samples_that_the_unit_was_not_made_of_are_no_pixels_of_it(made):
    data = opened(made)
    pixels, unit = data.mixture.pixels[0], data.datasets[0].units[0]
    assert pixels
    with pytest.raises(DatasetError, match=f"the corpus has other samples than those that {unit.name} was made of"):
        pixels.read(unit, "the digest of other rows", 1)


def test_a_big_jpeg_is_decoded_at_reduced_scale(folder, monkeypatch):
    """By the DCT, to an eighth: its 2,048 x 1,536 pixels are never there."""
    file = io.BytesIO()
    Image.new("RGB", (2048, 1536), (200, 30, 90)).save(file, "JPEG")
    data = opened(folder)
    pixels = data.mixture.pixels[0]
    assert pixels
    unit = data.datasets[0].units[0]
    sample = replace(next(iter(pixels._read(unit, pixels._limits))), image=file.getvalue())
    shapes: list[tuple[int, ...]] = []
    decode = images.simplejpeg.decode_jpeg

    def seen(*args: Any, **more: Any) -> np.ndarray:
        shapes.append(decode(*args, **more).shape)
        return decode(*args, **more)

    monkeypatch.setattr(images.simplejpeg, "decode_jpeg", seen)
    view = pixels.decode(sample, 0)
    assert shapes == [(192, 256, 3)]
    assert view is not None
    assert view.shape == (32, 32, 3)


# --- what the commands say --------------------------------------------------------------------------------------------


def test_plan_and_batches_tell_of_them(made, tmp_path, capsys):
    wanted(made)
    assert run_command("plan", str(made / "train.yaml")) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["pixels", "4", "-", "a", "-"] in lines
    assert ["corners", "<=", "3", "-", "a", "-"] in lines
    words = ("batches", str(made / "train.yaml"), "--batches", "2", "--output", str(tmp_path / "page"))
    assert run_command(*words) == 0
