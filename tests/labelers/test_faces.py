import io
import os
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tokenloom.labelers.faces import SHIPPED_WEIGHTS, Faces, FacesParams
from tokenloom.labelers.networks.hub import CheckpointError, package_path

facenet = pytest.importorskip("facenet_pytorch")
KIND = Faces.makes[0].kind


@pytest.fixture(scope="module")
def labeler():
    labeler = Faces()
    labeler.load("cpu")
    return labeler


@pytest.fixture(scope="module")
def images(photos):
    return {name: np.asarray(Image.open(io.BytesIO(photo))) for name, photo in photos.items()}


@pytest.fixture(scope="module")
def crowd(images):
    """The astronaut's face four times, at two sizes."""
    face = images["astronaut"][20:220, 140:310]
    half = np.asarray(Image.fromarray(face).resize((85, 100)))
    picture = np.full((320, 480, 3), 90, np.uint8)
    picture[20:220, 10:180], picture[60:260, 190:360] = face, face
    picture[10:110, 380:465], picture[180:280, 380:465] = half, half
    return picture


def faces(labeler, batch):
    return [KIND.check(found) for found in labeler.label(batch)["faces"]]


def test_finds_the_face_of_the_astronaut_alone(labeler, images, batch_of):
    found = dict(zip(images, faces(labeler, batch_of(list(images.values()))), strict=True))
    assert {name: len(instances) for name, instances in found.items() if len(instances)} == {"astronaut": 1}
    assert found["astronaut"].labels == ["face"]
    assert found["astronaut"].scores[0] > 0.99
    np.testing.assert_allclose(found["astronaut"].boxes[0], [0.35, 0.12, 0.52, 0.34], atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("params", [{}, {"min_face_size": 60, "thresholds": (0.5, 0.6, 0.6), "factor": 0.8}])
def test_equals_facenet_pytorchs_detector_one_image_at_a_time(images, crowd, batch_of, params):
    labeler = Faces(FacesParams(**params))
    labeler.load("cpu")
    reference = facenet.MTCNN(**params)
    pictures = [*images.values(), crowd]
    ours = faces(labeler, batch_of(pictures))
    assert len(ours[-1]) >= 2
    for picture, found in zip(pictures, ours, strict=True):
        boxes, scores = reference.detect(Image.fromarray(picture))
        if boxes is None:
            assert len(found) == 0
            continue
        height, width = picture.shape[:2]
        expected = (boxes.astype(np.float32) / [width, height, width, height]).clip(0, 1)
        np.testing.assert_allclose(found.boxes, expected, atol=1e-6)
        np.testing.assert_allclose(found.scores, scores.astype(np.float32), atol=1e-6)


@pytest.mark.slow
def test_faces_do_not_depend_on_the_batch(labeler, images, crowd, batch_of):
    pictures = [crowd, *images.values()]
    together = faces(labeler, batch_of(pictures))
    assert [faces(labeler, batch_of([picture]))[0] for picture in pictures] == together


def test_a_mirrored_view_has_mirrored_faces(labeler, crowd, batch_of):
    batch = batch_of([crowd])
    (found,) = faces(labeler, batch)
    whole = replace(batch.views[0], top=0, left=0, height=320, width=480, hflip=True)
    mirrored = KIND.crop(found, whole)
    (again,) = faces(labeler, batch_of([np.ascontiguousarray(crowd[:, ::-1])]))
    assert len(again) == len(found)
    cut, found_again = (
        sorted(map(tuple, (boxes[:, :2] + boxes[:, 2:]) / 2)) for boxes in (mirrored.boxes, again.boxes)
    )
    np.testing.assert_allclose(cut, found_again, atol=0.02)  # middles of the boxes


def test_images_that_are_too_small_or_empty_give_empty_sets(labeler, batch_of):
    shapes = [(1, 1), (1, 5000), (5000, 1), (19, 300), (20, 20), (21, 300), (64, 96)]
    pictures = [np.full((*shape, 3), value, np.uint8) for shape in shapes for value in (0, 128, 255)]
    assert [len(found) for found in faces(labeler, batch_of(pictures))] == [0] * len(pictures)


def test_weights_may_lie_in_another_folder(labeler, images, batch_of, tmp_path):
    copy, tiny = tmp_path / "copy", tmp_path / "tiny"
    shutil.copytree(package_path(SHIPPED_WEIGHTS), copy)
    tiny.mkdir()
    answers = []
    for folder in (copy, Faces.write_tiny(tiny)):
        other = Faces(weights=str(folder))
        other.load("cpu")
        answers.append(faces(other, batch_of([images["astronaut"]]))[0])
    assert answers[0] == faces(labeler, batch_of([images["astronaut"]]))[0]
    assert answers[1] != answers[0]


def test_bad_weights_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"pnet\.pt: no such file"):
        Faces(weights=str(tmp_path)).load("cpu")
    Faces.write_tiny(tmp_path)
    whole = (tmp_path / "onet.pt").read_bytes()
    (tmp_path / "onet.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"onet\.pt: isn't a whole checkpoint"):
        Faces(weights=str(tmp_path)).load("cpu")
    shutil.copy(tmp_path / "rnet.pt", tmp_path / "onet.pt")
    with pytest.raises(CheckpointError, match=r"onet\.pt: \d+ tensors don't fit ONet"):
        Faces(weights=str(tmp_path)).load("cpu")
    torch.save({"conv1.weight": os.system}, tmp_path / "onet.pt")
    with pytest.raises(CheckpointError, match=r"onet\.pt: holds more than tensors"):
        Faces(weights=str(tmp_path)).load("cpu")


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps facenet-pytorch"):
        Faces().load("cpu")
