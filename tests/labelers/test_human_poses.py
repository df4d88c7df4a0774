from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenloom.labelers import human_poses
from tokenloom.labelers.contract import poses
from tokenloom.labelers.contract.instances import InstanceSet
from tokenloom.labelers.contract.labeler import Batch
from tokenloom.labelers.contract.licences import is_noncommercial
from tokenloom.labelers.contract.views import View
from tokenloom.labelers.human_poses import HumanPoses, HumanPosesParams
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.people.crops import crop_square, full_camera, in_pixels, squares
from tokenloom.labelers.people.hmr2 import build
from tokenloom.labelers.people.hmr2_converter import PREFIXES, convert, read_lightning

KIND = HumanPoses.makes[0].kind
CPU = "cpu"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A Lightning checkpoint."""
    return str(HumanPoses.write_tiny(tmp_path_factory.mktemp("hmr2")))


@pytest.fixture(scope="module")
def labeler(weights):
    return loaded(weights)


def loaded(weights, **params):
    labeler = HumanPoses(HumanPosesParams(**params), weights)
    labeler.load(CPU)
    return labeler


def det(*boxes, label="person", score=0.9):
    scores = np.linspace(score, score - 0.01 * (len(boxes) - 1), len(boxes)).astype(np.float32)
    return InstanceSet(np.array(boxes, np.float32).reshape(-1, 4), [label] * len(boxes), scores)


BOXES = [[0.1, 0.1, 0.6, 0.95], [0.4, 0.2, 0.9, 0.8], [0, 0, 1, 1]]


@pytest.fixture(scope="module")
def pictures(photographs):
    return list(photographs.values())


def poses_of(labeler, batch_of, images, dets):
    labels = labeler.label(batch_of(images, det=dets))["human_poses"]
    for label in labels:
        assert KIND.check(label) is label
    return labels


def test_labels_are_the_networks_answers_one_person_at_a_time(weights, labeler, pictures, batch_of):
    network = build(read_lightning(Path(weights)), weights)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    labels = poses_of(labeler, batch_of, pictures, [det(*BOXES)] * len(pictures))
    for image, label in zip(pictures, labels, strict=True):
        centres, sides = squares(in_pixels(label.boxes, *image.shape[:2]))
        for index, (centre, side) in enumerate(zip(centres, sides, strict=True)):
            crop = ((crop_square(image, centre, side) / 255 - mean) / std).transpose(2, 0, 1)[None]
            with torch.inference_mode():
                pose, betas, camera = (part.numpy() for part in network(torch.from_numpy(crop).float()))
            rotations = poses.rotations_from_6d(pose.reshape(24, 6))
            found = {name: values[index] for name, values in label.attributes.items()}
            np.testing.assert_allclose(found["global_orient"], rotations[0], atol=1e-4)
            np.testing.assert_allclose(found["body_pose"], rotations[1:], atol=1e-4)
            np.testing.assert_allclose(found["betas"], betas[0], atol=1e-4)
            np.testing.assert_allclose(found["pred_cam"], camera[0], atol=1e-4)
            expected = full_camera(camera, centre[None], side[None], *image.shape[:2])[0]
            np.testing.assert_allclose(found["camera"], expected, rtol=1e-4, atol=1e-4)


def test_equals_the_reference_on_its_crops(shared):
    """From boxes to parameters, against what the reference's network makes of the reference's crops."""
    folder = shared / "golden" / "hmr2"
    tensors = {n: t for n, t in load_file(folder / "model.safetensors").items() if n.startswith(PREFIXES)}
    golden = np.load(folder / "crop_io.npz")
    labeler = HumanPoses()
    labeler._device, labeler._network = CPU, build(tensors, "golden", 4, 4)
    image = np.ascontiguousarray(golden["big_image_bgr"][..., ::-1])
    height, width = image.shape[:2]
    seen = det(*(golden["big_boxes"] / [width, height, width, height]))
    view = View(0, 0, 0, height, width, False, 224, height, width)
    label = labeler.label(Batch(["0"], [image], [view], [{}], {"det": [seen]}))["human_poses"][0]
    with torch.inference_mode():
        pose, betas, camera = (part.numpy() for part in labeler._network(torch.from_numpy(golden["big_img"])))
    rotations = poses.rotations_from_6d(pose.reshape(-1, 24, 6))
    np.testing.assert_allclose(label.attributes["body_pose"], rotations[:, 1:], atol=1e-3)
    np.testing.assert_allclose(label.attributes["betas"], betas, atol=1e-3)
    np.testing.assert_allclose(label.attributes["pred_cam"], camera, atol=1e-3)


def test_labels_tell_people_apart(labeler, pictures, batch_of):
    first, second, _ = poses_of(labeler, batch_of, pictures[:1], [det(*BOXES)])[0].attributes["body_pose"]
    assert np.abs(first - second).max() > 0.01


def test_a_label_does_not_depend_on_the_batch(labeler, pictures, batch_of, monkeypatch):
    images = [pictures[0], pictures[1][:100], pictures[2]]
    dets = [det(*BOXES), det(), det(BOXES[1])]
    together = poses_of(labeler, batch_of, images, dets)
    monkeypatch.setattr(human_poses, "CROPS_AT_ONCE", 2)
    in_parts = poses_of(labeler, batch_of, images, dets)
    for index in range(3):
        alone = poses_of(labeler, batch_of, images[index : index + 1], dets[index : index + 1])[0]
        for name, values in alone.attributes.items():
            np.testing.assert_allclose(values, together[index].attributes[name], rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(values, in_parts[index].attributes[name], rtol=1e-5, atol=1e-5)


def test_only_people_that_det_is_sure_of(weights, labeler, pictures, batch_of):
    seen = InstanceSet(
        np.array([*BOXES, [0, 0, 0.5, 0.5]], np.float32),
        ["person", "dog", "person", "person"],
        np.array([0.6, 0.95, 0.8, 0.5], np.float32),
    )
    label = poses_of(labeler, batch_of, pictures[:1], [seen])[0]
    assert label.labels == ["human", "human"]
    assert label == replace(label, scores=np.array([0.8, 0.6], np.float32))
    np.testing.assert_array_equal(label.boxes, seen.boxes[[2, 0]])
    assert len(poses_of(loaded(weights, max_persons=1), batch_of, pictures[:1], [seen])[0]) == 1
    assert len(poses_of(loaded(weights, min_score=0.4), batch_of, pictures[:1], [seen])[0]) == 3


def test_images_without_people_have_empty_labels(labeler, pictures, batch_of):
    nobody = InstanceSet.empty(scores=True, attributes=poses.ATTRIBUTES["smpl"])
    assert poses_of(labeler, batch_of, pictures[:2], [det(), det(BOXES[0], label="chair")]) == [nobody, nobody]
    assert labeler.label(batch_of([], det=[]))["human_poses"] == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_people_in_odd_images(labeler, batch_of, shape):
    assert len(poses_of(labeler, batch_of, [np.zeros((*shape, 3), np.uint8)], [det([0, 0, 1, 1])])[0]) == 1


def test_three_hundred_people(labeler, pictures, batch_of):
    crowd = det(*[[0.1, 0.1, 0.2 + index / 1000, 0.4] for index in range(300)], score=1.0)
    scores = np.linspace(0.51, 1, 300).astype(np.float32)
    crowd = replace(crowd, scores=scores)
    label = poses_of(labeler, batch_of, pictures[:1], [crowd])[0]
    assert label == replace(label, scores=scores[::-1][:20])


class Symmetric(torch.nn.Module):
    """A network made to answer a mirrored crop with the mirrored pose: the mean of its answers to both."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, crops):
        plain, mirrored = self.network(crops), self.network(crops.flip(3))
        swapped = torch.from_numpy(poses.swapped(24, poses.SMPL_PAIRS))
        pose = mirrored[0].unflatten(1, (24, 6))[:, swapped]
        pose = pose * torch.tensor([1.0, -1, -1, -1, 1, 1])  # the first two columns of M R M
        back = pose.flatten(1), mirrored[1], mirrored[2] * torch.tensor([1.0, -1, 1])
        return tuple((one + other) / 2 for one, other in zip(plain, back, strict=True))


def test_label_then_mirror_is_mirror_then_label(weights, batch_of, pictures):
    """For a network that knows no left from right; the crops are of 256 pixels, so that their pixels fall together."""
    labeler = loaded(weights)
    labeler._network = cast("Any", Symmetric(labeler._network))
    image = np.concatenate([np.tile(pictures[0], (2, 1, 1))[:300], np.tile(pictures[1], (2, 1, 1))[:300]], axis=1)
    height, width = image.shape[:2]
    seen = det(
        [100 / width, 20 / height, 240 / width, 276 / height], [10 / width, 30 / height, 200 / width, 286 / height]
    )
    mirror = View(1, 0, 0, height, width, True, 224, height, width)
    label = poses_of(labeler, batch_of, [image], [seen])[0]
    expected = poses_of(labeler, batch_of, [np.ascontiguousarray(image[:, ::-1])], [seen.crop(mirror)])[0]
    found = KIND.crop(label, mirror)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-6)
    for name, values in found.attributes.items():
        np.testing.assert_allclose(values, expected.attributes[name], rtol=1e-3, atol=1e-3, err_msg=name)
    assert np.abs(found.attributes["body_pose"] - label.attributes["body_pose"]).max() > 0.01


def test_the_converted_checkpoint_gives_the_same_labels(weights, labeler, pictures, batch_of, tmp_path):
    target = tmp_path / "hmr2.safetensors"
    count = convert(Path(weights), target)
    assert count == len(labeler._network.state_dict())
    converted = poses_of(loaded(str(target)), batch_of, pictures[:1], [det(*BOXES)])
    assert converted == poses_of(labeler, batch_of, pictures[:1], [det(*BOXES)])


def test_unrelated_tensors_of_a_safetensors_file_are_left_alone(weights, labeler, tmp_path):
    state = torch.load(weights, weights_only=True)["state_dict"]
    assert "smpl.v_template" in state
    save_file(state, tmp_path / "all.safetensors")
    assert (
        loaded(str(tmp_path / "all.safetensors"))._network.state_dict().keys() == labeler._network.state_dict().keys()
    )


def test_bad_weights_are_refused(weights, tmp_path):
    for bad in (None, str(tmp_path), str(tmp_path / "absent.ckpt")):
        with pytest.raises(CheckpointError, match=r"not a file; give the path of HMR2\.0's Lightning checkpoint"):
            HumanPoses(weights=bad).load(CPU)
    whole = Path(weights).read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"cut\.ckpt: isn't a whole checkpoint"):
        HumanPoses(weights=str(tmp_path / "cut.ckpt")).load(CPU)
    save_file({"model.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors: has no backbone\.last_norm\.weight"):
        HumanPoses(weights=str(tmp_path / "other.safetensors")).load(CPU)


def test_only_the_published_file_is_noncommercial():
    weights = HumanPoses.weights
    assert weights is not None
    assert is_noncommercial(weights.licence_of("/data/epoch=35-step=1000000.ckpt"))
    assert weights.licence_of("s3://bucket/hmr2.safetensors") == "MIT"


def test_makes_is_known_without_weights():
    assert HumanPoses().makes[0].kind.describe()["attributes"]["body_pose"] == (23, 3, 3)


def test_can_be_looked_at(labeler, pictures, batch_of):
    label = poses_of(labeler, batch_of, pictures[:1], [det(*BOXES)])[0]
    assert cast("np.ndarray", KIND.show(label, pictures[0])).shape == (448, 448, 3)
