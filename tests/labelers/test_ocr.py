import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from tokenloom.labelers.networks.hub import CheckpointError, package_path
from tokenloom.labelers.ocr import SHIPPED_WEIGHTS, Ocr, OcrParams

pytestmark = pytest.mark.slow

KIND = Ocr.makes[0].kind


@pytest.fixture(scope="module")
def labeler():
    labeler = Ocr()
    labeler.load("cpu")
    return labeler


@pytest.fixture(scope="module")
def page():
    data = pytest.importorskip("skimage.data")
    return np.stack([data.page()] * 3, axis=-1)


def sign(text, width=640, height=200, at=(60, 80), size=48):
    picture = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(picture).text(at, text, fill="black", font=ImageFont.load_default(size))
    return np.asarray(picture)


@pytest.mark.slow
def test_reads_a_photographed_page_line_by_line(labeler, page, batch_of):
    (lines,) = labeler.label(batch_of([page]))["ocr"]
    assert lines.texts[0] == "Region-based segmentation"
    assert lines.texts[1] == "Let us first determine markers of the coins and the"
    assert "markers = np.zeros" in lines.texts[-1]
    assert len(lines) == 7
    assert set(lines.labels) == {"text"}
    assert (np.diff(lines.boxes[:, 1]) > 0).all()  # top to bottom


def test_boxes_are_shares_of_the_image_that_hold_the_text(labeler, batch_of):
    image = sign("SLOW DOWN")
    (lines,) = labeler.label(batch_of([image]))["ocr"]
    assert list(lines.texts) == ["SLOW DOWN"]
    rows, columns = np.nonzero(image[..., 0] < 128)
    ink = np.array([columns.min() / 640, rows.min() / 200, columns.max() / 640, rows.max() / 200])
    np.testing.assert_allclose(lines.boxes[0], ink, atol=0.08)
    assert lines.scores[0] > 0.9


def test_what_is_found_at_reduced_size_is_read_at_full_resolution(batch_of):
    labeler = Ocr(OcrParams(max_side=640))
    labeler.load("cpu")
    (lines,) = labeler.label(batch_of([sign("Platform 12", 2560, 800, (240, 320), 150)]))["ocr"]
    assert list(lines.texts) == ["Platform 12"]


def test_images_of_many_sizes_without_text_give_empty_sets(labeler, batch_of):
    shapes = [(1, 1), (1, 5000), (5000, 1), (3, 3), (15, 400), (40, 5000), (480, 640)]
    rng = np.random.default_rng(0)
    images = [np.full((*shape, 3), rng.integers(256), np.uint8) for shape in shapes]
    labels = labeler.label(batch_of(images))["ocr"]
    assert [len(KIND.check(label)) for label in labels] == [0] * len(shapes)


def test_lines_below_the_least_score_are_dropped(page, batch_of):
    strict = Ocr(OcrParams(min_score=0.99))
    strict.load("cpu")
    (lines,) = strict.label(batch_of([page]))["ocr"]
    assert 0 < len(lines) < 7
    assert (lines.scores >= 0.99).all()


def test_it_says_nothing(labeler, page, batch_of, capfd):
    labeler.label(batch_of([page, np.zeros((64, 64, 3), np.uint8)]))
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_the_models_is_refused(tmp_path):
    labeler = Ocr(weights=str(tmp_path))
    with pytest.raises(CheckpointError, match=r"one file \*det\*\.onnx, not 0"):
        labeler.load("cpu")


def test_the_shipped_folder_may_be_named(page, batch_of):
    labeler = Ocr(weights=str(package_path(SHIPPED_WEIGHTS)))
    labeler.load("cpu")
    assert len(labeler.label(batch_of([page]))["ocr"][0]) == 7
