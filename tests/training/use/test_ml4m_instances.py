"""Boxes, masks and people in exports for ml-4m, read as its transforms read them (../shared/facts/ml4m.md 1.4, 1.5)."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from command import command
from in_process import weave
from PIL import Image
from test_to_ml4m import read_all
from tokenloom import Dataset, open_dataset
from tokenloom.labelers.contract.instances import InstanceSet, Mask
from tokenloom.labelers.contract.views import View, ViewSettings, cut_view
from tokenloom.pipeline.dataset.manifest import publish
from tokenloom.pipeline.dataset.tokenizers import load_tokenizer
from tokenloom.pipeline.plan.recipe import parse_recipe
from tokenloom.tokenizers.instances.instance_text import InstancesText
from tokenloom.tokenizers.instances.pose_text import PosesText
from tokenloom.training.use.ml4m_instances import outline, polygons_array

WIDTH, HEIGHT = 96, 64
CAPTIONS = {"a0": "nothing at all", "a1": "a person and a dog", "a2": "the same again"}
TARS = (["a0", "a1", "a2"], ["a1"])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Dataset, Path, str]:
    """A dataset of two tars with four images, two of which have the same key, its export, and what the command said."""
    folder = tmp_path_factory.mktemp("ml4m")
    (folder / "photos").mkdir()
    for number, keys in enumerate(TARS):
        with tarfile.open(folder / f"photos/{number}.tar", "w") as tar:
            for key in keys:
                jpeg = io.BytesIO()
                Image.new("RGB", (WIDTH, HEIGHT), "teal").save(jpeg, "JPEG")
                for name, data in ((f"{key}.jpg", jpeg.getvalue()), (f"{key}.txt", CAPTIONS[key].encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    seen = {"det": "Boxes", "sam_instance": "Discs", "human_poses": "People"}
    modalities = {name: {"labeler": f"seen_labelers:{of}", "keep": "both"} for name, of in seen.items()}
    recipe = {
        "corpus": str(folder / "photos"),
        "output": str(folder / "dataset"),
        "views": {"count": 3},
        "modalities": {"caption": {"keep": "both"}, **modalities},
    }
    weave(parse_recipe(recipe))
    ended = command("export", folder / "dataset", folder / "out", "--to", "ml-4m")
    assert ended.code == 0, ended.err
    return open_dataset(str(folder / "dataset")), folder / "out", ended.out


def key_of(sample: dict[str, Any]) -> str:
    return sample["__key__"].partition("%n")[0]


def view_of(dataset: Dataset, key: str, number: int) -> View:
    return cut_view(dataset.manifest.seed, key, number, HEIGHT, WIDTH, ViewSettings(**dataset.manifest.views))


def coordinates(dataset: Dataset, name: str, key: str, view: int) -> list[int]:
    """What the dataset's own tokens of a view say, coordinates alone: v0 to v3 as 0 to 3,999."""
    tokenizer = load_tokenizer(dataset.store, name, dataset.manifest.modalities[name])
    assert isinstance(tokenizer, InstancesText | PosesText)
    pieces = [tokenizer.vocabulary.coordinate_of(int(index)) for index in dataset.get(key, view).values[name]]
    return [1000 * piece.axis + piece.value for piece in pieces if piece is not None]


def written(code: int) -> int:
    """A code as ml-4m writes it."""
    return code if code < 512 else 1000 + code - 512


def test_all_of_them_are_exported_and_bring_the_pixels(made):
    _, out, said = made
    assert "12 rows of caption, det, sam_instance, human_poses in 6 files" in said
    assert "left out" not in said
    assert "human_poses: ml-4m doesn't mirror them" in said
    readme = (out / "README.md").read_text()
    assert "    in_domains: rgb@224-caption-det-sam_instance-human_poses\n" in readme
    assert "    out_domains: caption-det-sam_instance-human_poses\n" in readme
    assert "    main_augment_domain: rgb@224\n" in readme
    assert re.search(r"^- sam_instance: instances, fitted to this dataset \(\w+\)$", readme, re.MULTILINE)
    assert {sample["rgb"].size for sample in read_all(out)} == {(WIDTH, HEIGHT)}


def test_masks_are_polygons_with_the_ids_of_their_views_tokens(made):
    """As SAMInstanceTokTransform asks: which polygon is a query point in, and what are its box and its 16 ids."""
    dataset, out, _ = made
    kind = dataset.modalities["sam_instance"].kind
    for sample in read_all(out):
        key = key_of(sample)
        assert len(sample["sam_instance"]) == 3
        for number, record in enumerate(sample["sam_instance"]):
            record["token_ids"] = record["token_ids"].astype(np.int32)
            label = dataset.get(key, 0, ["sam_instance"], labels=True).values["sam_instance"]
            seen = kind.crop(label, view_of(dataset, key, number))
            masks = [mask.to_array() for mask in seen.masks or ()]
            contours = [one[0] for one in record["points"]]
            for x, y in np.random.default_rng(number).integers(0, 224, (40, 2)).tolist():
                asked = [cv2.pointPolygonTest(one, (x, y), True) for one in contours]
                for at, mask in enumerate(masks):
                    is_speck = mask[y, x] and at == 2  # the smaller part of a mask, which has no polygon
                    assert (asked[at] >= 0) == mask[y, x] or abs(asked[at]) < 2 or is_speck
                assert all(distance < 0 for distance in asked[len(masks) :])
            found = []
            for ids, box in zip(record["token_ids"].tolist(), record["bbox"], strict=True):
                top, left, bottom, right = box.astype(np.int32).tolist()
                found.append((*(round(side / 224, 2) for side in (left, top, right, bottom)), *map(written, ids)))
            own = np.array(coordinates(dataset, "sam_instance", key, number)).reshape(-1, 20)
            boxes = (own[:, :4] - [0, 1000, 2000, 3000]) / 999
            stored = {tuple(codes) for codes in own[:, 4:].tolist()}
            assert {one[4:] for one in found[: len(masks)]} == stored
            for box in boxes:
                assert min(np.abs(box - one[:4]).max() for one in found) < 0.02


def test_people_are_as_its_transform_reads_them(made):
    """HumanPoseTransform: boxes in pixels of the whole image, ids below 1,024, and words within its vocabulary."""
    dataset, out, _ = made
    for sample in read_all(out):
        people = sample["human_poses"]
        key = key_of(sample)
        if key == "a0":
            assert people == {}
            continue
        shapes = {name: np.array(people[name]).shape for name in ("bbox_xyxy", "pred_cam", "pose_tokenized")}
        assert shapes == {"bbox_xyxy": (2, 4), "pred_cam": (2, 3), "pose_tokenized": (2, 8)}
        params = {name: np.array(values) for name, values in people["pred_smpl_params"].items()}
        assert {name: one.shape for name, one in params.items()} == {
            "global_orient": (2, 1, 3, 3),
            "body_pose": (2, 23, 3, 3),
            "betas": (2, 10),
        }
        assert people["bbox_xyxy"][0] == [24, 16, 48, 48]
        assert all(isinstance(side, float) for box in people["bbox_xyxy"] for side in box)  # it divides in their type
        assert (np.round(166.5 * params["betas"] + 499.5) == np.array([[583] * 10, [999] * 10])).all()
        own = np.array(coordinates(dataset, "human_poses", key, 0)).reshape(2, 34)
        assert [[written(code) for code in codes] for codes in people["pose_tokenized"]] == own[:, 4:12].tolist()


def test_samples_with_the_same_key_stay_apart(made):
    _, out, _ = made
    assert [sample["__key__"] for sample in read_all(out)] == ["a0", "a1", "a2", "a1%n1"]


def test_boxes_are_of_whole_images(made):
    _, out, _ = made
    found = {sample["__key__"]: sample["det"]["instances"] for sample in read_all(out)}
    assert found["a0"] == []
    assert [one["class_name"] for one in found["a1"]] == ["person", "dog"]


@pytest.mark.parametrize(("height", "width"), [(224, 224), (448, 448), (20, 55), (1, 1)])
def test_views_of_any_size_are_counted_in_224_pixels(height, width):
    """A mask's outermost pixels have their centres on its outline."""
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 2 + 1, width // 3 : width // 2 + 1] = True
    line = outline(Mask.from_array(mask))
    rows, columns = np.nonzero(mask)
    for axis, places, side in ((0, columns, width), (1, rows, height)):
        for found, place in ((line[:, axis].min(), places.min()), (line[:, axis].max(), places.max())):
            assert abs(found - ((place + 0.5) * 224 / side - 0.5)) < 0.51


def test_views_with_fewer_instances_are_filled_up_outside_of_them():
    mask = Mask.from_array(np.ones((8, 8), bool))
    one = InstanceSet(np.array([[0, 0, 1, 1]], np.float32), ["object"], masks=[mask])
    codes = np.arange(1008, 1024)[None]
    for seen in ([one, one.take([])], [one.take([]), one.take([])]):
        records = polygons_array(seen, [codes[: len(view)] for view in seen])
        for view, record in zip(seen, records, strict=True):
            tests = [cv2.pointPolygonTest(part[0], (100.0, 100.0), True) for part in record["points"]]
            assert [test >= 0 for test in tests] == [True] * len(view) + [False] * (len(tests) - len(view))
            assert (record["token_ids"][: len(view)] == codes[: len(view)]).all()


def test_decoder_only_sequences_of_them_are_decoded(made, tmp_path):
    """Tokens hold no scores, which the kind of detections promises."""
    dataset, _, _ = made
    assert command("export", dataset.store.url, tmp_path / "lm", "--to", "lm").code == 0
    tokens = pq.read_table(tmp_path / "lm/sequences/00000.parquet")["tokens"][0].as_py()
    (tmp_path / "ids.json").write_text(json.dumps(tokens))
    ended = command("decode", tmp_path / "lm", tmp_path / "ids.json", "--output", tmp_path / "labels")
    assert ended.code == 0, ended.err
    assert len(list((tmp_path / "labels").glob("*-det.json"))) == 12
    people = [json.loads(path.read_text())["labels"] for path in (tmp_path / "labels").glob("*-human_poses.json")]
    assert sorted(map(len, people)) == [0, 0, 0, *[2] * 9]


# --- what is refused --------------------------------------------------------------------------------------------------


def changed(dataset: Dataset, folder: Path, name: str, **card) -> str:
    """A copy of the dataset in which a modality's card says otherwise."""
    shutil.copytree(dataset.store.url, folder / "copy")
    copy = open_dataset(folder / "copy")
    cards = {**copy.manifest.modalities, name: replace(copy.manifest.modalities[name], **card)}
    publish(copy.store, lambda now: replace(copy.manifest, modalities=cards))
    return copy.store.url


@pytest.mark.parametrize(
    ("name", "card", "why"),
    [
        ("sam_instance", {"tokens": None, "keeps_tokens": False}, "it has no tokenizer that makes such"),
        ("human_poses", {"tokens": None, "keeps_tokens": False}, "it has no tokenizer that makes such"),
        ("human_poses", {"on": "view"}, "these are of views"),
        ("human_poses", {"keeps_labels": False}, "its labels aren't kept (`keep: both`)"),
        ("det", {"on": "view"}, "these are of views"),
    ],
)
def test_what_ml_4m_could_not_read_is_left_out_by_name(made, tmp_path, name, card, why):
    url = changed(made[0], tmp_path, name, **card)
    ended = command("export", url, tmp_path / "out", "--to", "ml-4m", "--modality", name)
    assert ended.code == 2
    assert f"{name} can't be exported to ml-4m" in ended.err
    assert why in ended.err
