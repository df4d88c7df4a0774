import json
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenloom.labelers import skeletons
from tokenloom.labelers.contract import drawing
from tokenloom.labelers.contract.instances import InstanceSet
from tokenloom.labelers.contract.poses import ATTRIBUTES, COCO17_PAIRS
from tokenloom.labelers.contract.views import View
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.people.crops import in_pixels
from tokenloom.labelers.skeletons import Skeletons, SkeletonsParams, crop_regions, peaks
from transformers import VitPoseForPoseEstimation, VitPoseImageProcessor

KIND = Skeletons.makes[0].kind
CPU = "cpu"
BOXES = [[0.1, 0.1, 0.6, 0.95], [0.4, 0.2, 0.9, 0.8], [0, 0, 1, 1], [0.7, 0.75, 1, 1]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(Skeletons.write_tiny(tmp_path_factory.mktemp("vitpose")))


@pytest.fixture(scope="module")
def labeler(weights):
    return loaded(weights)


@pytest.fixture(scope="module")
def processor(weights):
    return VitPoseImageProcessor.from_pretrained(weights)


@pytest.fixture(scope="module")
def pictures(photographs):
    """Of different sizes."""
    return [photograph[20 * index :, : 224 - 7 * index] for index, photograph in enumerate(photographs.values())]


def loaded(weights, **params):
    labeler = Skeletons(SkeletonsParams(**params), weights)
    labeler.load(CPU)
    return labeler


def det(*boxes, label="person"):
    scores = np.linspace(0.9, 0.8, len(boxes)).astype(np.float32)
    return InstanceSet(np.array(boxes, np.float32).reshape(-1, 4), [label] * len(boxes), scores)


def skeletons_of(labeler, batch_of, images, dets):
    labels = labeler.label(batch_of(images, det=dets))["skeletons"]
    for label in labels:
        assert KIND.check(label) is label
    return labels


def coco_boxes(image, boxes):
    """Left, top, width and height in pixels, as transformers wants them."""
    pixels = in_pixels(np.array(boxes, np.float32), *image.shape[:2])
    return np.concatenate([pixels[:, :2], pixels[:, 2:] - pixels[:, :2]], axis=1).tolist()


def test_equals_transformers_own_processor_and_model_one_image_at_a_time(
    weights, labeler, processor, pictures, batch_of
):
    """Scores to 0.02 of up to 9, and 97 of 100 places to a twentieth of a pixel.

    The crops differ in some grey levels' rounding, of which random weights make much; and their heatmaps have plateaus,
    on which a Newton step goes far.
    """
    model = VitPoseForPoseEstimation.from_pretrained(weights).eval()
    labels = skeletons_of(labeler, batch_of, pictures, [det(*BOXES)] * len(pictures))
    apart = []
    for image, label in zip(pictures, labels, strict=True):
        boxes = coco_boxes(image, BOXES)
        with torch.inference_mode():
            outputs = model(**processor(image, boxes=[boxes], return_tensors="pt"))
        expected = processor.post_process_pose_estimation(outputs, boxes=[boxes])[0]
        for found, person in zip(label.attributes["keypoints"], expected, strict=True):
            scores = person["scores"].numpy()
            np.testing.assert_allclose(found[:, 2], scores, atol=0.02)
            places = found[:, :2] * [image.shape[1], image.shape[0]] - 0.5
            # heatmaps are clipped at 0.001 before their logarithm is taken: lower ones have no shape to speak of
            sure = scores > 0.1
            apart += np.abs(places[sure] - person["keypoints"].numpy()[sure]).max(axis=1).tolist()
    assert len(apart) > 200
    assert np.median(apart) < 0.005
    assert np.quantile(apart, 0.97) < 0.05


def test_crops_equal_scipys_to_a_grey_level(processor, pictures):
    for image in pictures:
        expected = processor(
            image, boxes=[coco_boxes(image, BOXES)], do_rescale=False, do_normalize=False, return_tensors="np"
        )["pixel_values"]
        regions = crop_regions(in_pixels(np.array(BOXES), *image.shape[:2]), 192 / 256)
        found = np.stack([skeletons._crop(image, region, (256, 192)) for region in regions])
        apart = np.abs(found.transpose(0, 3, 1, 2) - expected.astype(np.float64))
        assert apart.max() <= 1
        assert apart.mean() < 1e-3


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_peaks_equal_transformers(seed, people):
    """On heatmaps as networks make them, with peaks at the border and beside each other."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:64, 0:48]
    y, x = rng.uniform(0, 63, (people, 17, 1, 1)), rng.uniform(0, 47, (people, 17, 1, 1))
    heatmaps = rng.uniform(0.1, 1, (people, 17, 1, 1)) * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8)
    heatmaps = (heatmaps + rng.normal(0, 0.005, heatmaps.shape)).astype(np.float32)
    cells, scores = peaks(heatmaps)
    whole = [[[0, 0, 48, 64]]] * people  # whose crop is 1.25 times as large
    expected = VitPoseImageProcessor().post_process_pose_estimation(
        cast("Any", SimpleNamespace(heatmaps=torch.from_numpy(heatmaps))), boxes=whole
    )
    for found, score, (person,) in zip(cells, scores, expected, strict=True):
        places = np.array([24, 32]) - np.array([60, 80]) / 2 + found * np.array([60, 80]) / [47, 63]
        np.testing.assert_allclose(places, person["keypoints"], atol=2e-3)
        np.testing.assert_array_equal(score, person["scores"])


def test_heatmaps_without_a_peak_have_a_finite_place():
    heatmaps = np.stack([np.zeros((64, 48)), np.full((64, 48), -1.0), np.ones((64, 48))])[None].astype(np.float32)
    cells, scores = peaks(heatmaps)
    np.testing.assert_allclose(cells[0], [[0, 0]] * 3, atol=1e-6)
    assert scores.tolist() == [[0, -1, 1]]


def test_a_label_does_not_depend_on_the_batch(labeler, pictures, batch_of, monkeypatch):
    dets = [det(*BOXES), det(), det(BOXES[1]), det(*BOXES[:2])]
    together = skeletons_of(labeler, batch_of, pictures, dets)
    monkeypatch.setattr(skeletons, "CROPS_AT_ONCE", 2)
    in_parts = skeletons_of(labeler, batch_of, pictures, dets)
    for index in range(4):
        alone = skeletons_of(labeler, batch_of, pictures[index : index + 1], dets[index : index + 1])[0]
        for other in (together, in_parts):
            np.testing.assert_allclose(
                alone.attributes["keypoints"], other[index].attributes["keypoints"], atol=1e-3, rtol=1e-3
            )


def test_only_people_that_det_is_sure_of(weights, pictures, batch_of):
    seen = replace(det(*BOXES), labels=["person", "dog", "person", "person"])
    seen = replace(seen, scores=np.array([0.6, 0.9, 0.8, 0.5], np.float32))
    label = skeletons_of(loaded(weights), batch_of, pictures[:1], [seen])[0]
    assert label.labels == ["person", "person"]
    np.testing.assert_array_equal(label.boxes, seen.boxes[[2, 0]])
    assert len(skeletons_of(loaded(weights, max_persons=1), batch_of, pictures[:1], [seen])[0]) == 1


def test_images_without_people_have_empty_labels(labeler, pictures, batch_of):
    nobody = InstanceSet.empty(scores=True, attributes=ATTRIBUTES["coco17"])
    assert skeletons_of(labeler, batch_of, pictures[:2], [det(), det(BOXES[0], label="chair")]) == [nobody, nobody]
    assert labeler.label(batch_of([], det=[]))["skeletons"] == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_people_in_odd_images(labeler, batch_of, shape):
    assert len(skeletons_of(labeler, batch_of, [np.zeros((*shape, 3), np.uint8)], [det([0, 0, 1, 1])])[0]) == 1


class ByColour:
    """Finds the left of each pair in dots of a colour on the right of the crop, and the right one on its left.

    So a person is thought to face the camera, and a mirrored crop has mirrored heatmaps, left and right swapped.
    """

    def __init__(self, colours, mean, std):
        self.colours, self.mean, self.std = colours, mean, std

    def __call__(self, pixels):
        image = pixels * torch.tensor(self.std).view(3, 1, 1) + torch.tensor(self.mean).view(3, 1, 1)
        small = torch.nn.functional.avg_pool2d(image, 4)
        apart = (small[:, None] - self.colours[None, :, :, None, None]).square().sum(dim=2)
        heatmaps = torch.exp(-apart / 0.05)
        on_the_right = torch.arange(48) >= 24
        for left, right in COCO17_PAIRS:
            heatmaps[:, left] = heatmaps[:, left] * on_the_right
            heatmaps[:, right] = heatmaps[:, right] * ~on_the_right
        return SimpleNamespace(heatmaps=heatmaps)


def test_label_then_mirror_is_mirror_then_label(weights, batch_of):
    """To half a pixel of the heatmap, of which one is 5 of the image.

    The crop moves by a pixel where image and box are mirrored: boxes at the borders, pixels at their centres.
    """
    labeler = loaded(weights)
    rng = np.random.default_rng(0)
    hues = drawing.class_colours(np.arange(9)) / 255
    colours = np.concatenate([hues[:1], hues[1:].repeat(2, axis=0)])
    labeler._model = ByColour(torch.from_numpy(colours).float(), labeler._mean, labeler._std)
    image, middle = np.zeros((256, 192, 3), np.uint8), 96
    places = np.zeros((17, 2))
    for joint in range(17):
        side = 0 if joint == 0 else (1 if joint % 2 else -1)
        row, column = 12 + joint * 14, middle + side * int(rng.integers(25, 50))
        image[row - 6 : row + 7, column - 6 : column + 7] = (colours[joint] * 255).round()
        places[joint] = (column + 0.5) / 192, (row + 0.5) / 256
    box = [0.125, 0, 0.875, 1]
    mirror = View(1, 0, 0, 256, 192, True, 224, 256, 192)
    label = skeletons_of(labeler, batch_of, [image], [det(box)])[0]
    np.testing.assert_allclose(label.attributes["keypoints"][0, :, :2] * [192, 256], places * [192, 256], atol=3.5)
    mirrored = skeletons_of(labeler, batch_of, [image[:, ::-1].copy()], [det(box).crop(mirror)])[0]
    found = KIND.crop(label, mirror).attributes["keypoints"][0]
    expected = mirrored.attributes["keypoints"][0]
    np.testing.assert_allclose(found[:, :2] * [192, 256], expected[:, :2] * [192, 256], atol=2.5)


def test_vitpose_plus_asks_its_coco_expert(weights, pictures, batch_of, tmp_path):
    from transformers import VitPoseConfig

    config = VitPoseConfig.from_pretrained(weights)
    backbone = cast("Any", config.backbone_config)
    backbone.num_experts, backbone.part_features = 3, 8
    torch.manual_seed(0)
    model = VitPoseForPoseEstimation(config).eval()
    model.save_pretrained(tmp_path)
    VitPoseImageProcessor().save_pretrained(tmp_path)
    labeler = loaded(str(tmp_path))
    asked = []
    labeler._model.register_forward_pre_hook(lambda _, __, named: asked.append(named), with_kwargs=True)
    assert len(skeletons_of(labeler, batch_of, pictures[:1], [det(*BOXES)])[0]) == 4
    assert asked[0]["dataset_index"].tolist() == [0, 0, 0, 0]


def copy_of(folder, to):
    shutil.copytree(folder, to)
    return to


def test_bad_checkpoints_are_refused(weights, tmp_path):
    from safetensors.torch import load_file, save_file

    short = copy_of(weights, tmp_path / "short")
    tensors = load_file(short / "model.safetensors")
    del tensors["head.conv.weight"]
    save_file(tensors, short / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"head\.conv\.weight"):
        loaded(str(short))
    bare = copy_of(weights, tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="preprocessor_config"):
        loaded(str(bare))
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"model_type": "detr"}))
    with pytest.raises(CheckpointError, match="'detr', not of ViTPose"):
        loaded(str(other))
    cut = copy_of(weights, tmp_path / "cut")
    whole = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Exception, match=r"(?i)incomplete|invalid|header|cut"):
        loaded(str(cut))


def test_another_number_of_keypoints_is_refused(weights, tmp_path):
    from transformers import VitPoseConfig

    config = VitPoseConfig.from_pretrained(weights)
    config.id2label = {index: str(index) for index in range(133)}
    VitPoseForPoseEstimation(config).save_pretrained(tmp_path)
    VitPoseImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="133 keypoints, not COCO's 17"):
        loaded(str(tmp_path))


def test_skeletons_are_drawn():
    """Lines between sure keypoints, nothing of unsure ones."""
    keypoints = np.zeros((1, 17, 3), np.float32)
    keypoints[0, 5], keypoints[0, 7], keypoints[0, 9] = (0.25, 0.25, 0.9), (0.75, 0.25, 0.9), (0.75, 0.75, 0.1)
    image = np.full((448, 448, 3), 128, np.uint8)
    label = InstanceSet(np.array([[0.1, 0.1, 0.9, 0.9]], np.float32), [""], attributes={"keypoints": keypoints})
    drawn, plain = (drawing.draw_instances(each, image) for each in (label, replace(label, attributes={})))
    changed = (drawn != plain).any(axis=2)
    assert changed[112, 112:336].all()
    assert not changed[150:].any()
    far = replace(label, attributes={"keypoints": np.full((1, 17, 3), 1e30, np.float32)})
    np.testing.assert_array_equal(drawing.draw_instances(far, image), plain)


def test_labels_can_be_looked_at(labeler, pictures, batch_of):
    label = skeletons_of(labeler, batch_of, pictures[:1], [det(*BOXES)])[0]
    view = View(0, 0, 0, 224, 224, False, 224, 224, 224)
    assert cast("np.ndarray", KIND.show(KIND.crop(label, view), pictures[0])).shape == (448, 448, 3)
