"""All 21 fields of metadata at once, from labels of the kinds that the other labelers make."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike
from tokenloom.labelers.contract.instances import InstanceSet, Mask
from tokenloom.labelers.contract.kinds import Image, Instances, Text
from tokenloom.labelers.contract.labeler import Batch
from tokenloom.labelers.contract.views import View, ViewSettings, cut_view
from tokenloom.labelers.metadata import FIELDS, Metadata, occlusion_score
from tokenloom.labelers.plugins.registry import find_labeler

HEIGHT, WIDTH = 240, 320
VIEW = cut_view(0, "flag", 0, HEIGHT, WIDTH, ViewSettings())  # the columns from 40 to 280
MIRRORED = replace(VIEW, hflip=True)


def left_and_right(left: ArrayLike, right: ArrayLike, dtype: type) -> np.ndarray:
    """A map of the whole image with one value on the left half, another on the right."""
    values = np.array([left, right], dtype)
    return values.repeat(WIDTH // 2, axis=0)[None].repeat(HEIGHT, axis=0)


def boxes(*columns: tuple[int, int]) -> np.ndarray:
    """Boxes of full height between columns of the whole image."""
    return np.array([[left / WIDTH, 0, right / WIDTH, 1] for left, right in columns], np.float32)


def instances(labels: list[str], columns: list[tuple[int, int]], masks: bool = False) -> InstanceSet:
    found = [np.zeros((HEIGHT, WIDTH), bool) for _ in labels]
    for mask, (left, right) in zip(found, columns, strict=True):
        mask[:, left:right] = True
    scores = np.full(len(labels), 0.9, np.float32)
    return InstanceSet(boxes(*columns), labels, scores, masks=list(map(Mask.from_array, found)) if masks else None)


def semseg() -> np.ndarray:
    """Road above, a person below on the left, nothing known below on the right."""
    classes = left_and_right(0, 255, np.uint8)
    classes[: HEIGHT // 2] = 100
    return classes


WHOLE = {
    "human_poses": (Instances(scores=True), instances(["person"] * 2, [(60, 100), (200, 240)])),
    "sam_instance": (
        Instances(masks=True, scores=True),
        instances([""] * 4, [(0, 30), (50, 90), (100, 200), (290, 320)], masks=True),  # two outside the view
    ),
    "det": (Instances(scores=True), instances(["cat", "cat", "person"], [(50, 90), (60, 80), (100, 200)])),
    "semseg_coco": (Image(channels=1, dtype="uint8", content="classes", classes=133), semseg()),
    "normal": (Image(channels=3, content="normals"), left_and_right((128, 128, 255), (255, 128, 128), np.uint8)),
    "depth": (
        Image(channels=1, dtype="float32", content="intensity", unit="metre"),
        left_and_right(2.0, 7.0, np.float32),
    ),
}
EXPECTED = {
    "original_width": 320,
    "original_height": 240,
    "caption_n_chars": 22,
    "caption_n_words": 6,
    "caption_n_sentences": 2,
    "n_humans": 2,
    "n_sam_instances": 2,
    "n_coco_instances": 3,
    "coco_instance_diversity": 2,
    "colorfulness": round(1.3 * np.hypot(127.5, 63.75), 4),  # half (255, 0, 0), half black
    "brightness": 38.0,  # red has luma 76
    "contrast": 38.0,
    "saturation": 127.5,
    "entropy": 1.0,
    "walkability": 0.5,
    "objectness": 0.25,
    "semantic_diversity": 2,
    "geometric_complexity": pytest.approx(1 - 0.5**0.5, abs=0.01),  # half towards us, half to the right; 8 bits
    "occlusion_score": round(2 / 224, 4),  # the columns beside the step
    "watermark_score": 0.25,
    "aesthetic_score": 5.5,
}


def record_of(view: View, leave_out: tuple[str, ...] = ()) -> dict[str, float]:
    image = np.zeros((view.size, view.size, 3), np.uint8)
    image[:, : view.size // 2, 0] = 255
    labels = {
        name: [kind.check(kind.crop(kind.check(label), view))]
        for name, (kind, label) in WHOLE.items()
        if name not in leave_out
    }
    if "caption" not in leave_out:
        labels["caption"] = ["A red flag. Is it new?"]
    fields = {"watermark_score": 0.25, "aesthetic_score": 5.5}
    (record,) = Metadata().label(Batch(["flag"], image[None], [view], [fields], labels))["metadata"]
    return Metadata.makes[0].kind.check(record)


def test_all_21_fields_have_the_numbers_that_follow_from_the_labels():
    record = record_of(VIEW)
    assert tuple(record) == FIELDS
    assert tuple(EXPECTED) == FIELDS
    assert record == EXPECTED


def test_a_mirrored_view_has_the_same_numbers():
    assert record_of(MIRRORED) == {**record_of(VIEW), "geometric_complexity": EXPECTED["geometric_complexity"]}


@pytest.mark.parametrize(
    ("missing", "fields"),
    [
        ("caption", FIELDS[2:5]),
        ("human_poses", FIELDS[5:6]),
        ("sam_instance", FIELDS[6:7]),
        ("det", FIELDS[7:9]),
        ("semseg_coco", FIELDS[14:17]),
        ("normal", FIELDS[17:18]),
        ("depth", FIELDS[18:19]),
    ],
)
def test_without_a_modality_its_fields_alone_are_missing(missing: str, fields: tuple[str, ...]):
    assert set(FIELDS) - set(record_of(VIEW, (missing,))) == set(fields)


def test_every_wanted_modality_is_made_by_a_labeler_and_of_the_kind_that_is_measured():
    assert set(Metadata.wants) == {"caption", *WHOLE}
    for name in Metadata.wants:
        (made,) = (modality.kind for modality in find_labeler(name)().makes if modality.name == name)
        assert isinstance(made, Text if name == "caption" else type(WHOLE[name][0]))
        if isinstance(made, Image):
            expected = WHOLE[name][0]
            assert isinstance(expected, Image)
            assert (made.channels, made.dtype, made.content) == (expected.channels, expected.dtype, expected.content)


def test_of_inverse_depth_near_steps_count_more():
    metres = np.repeat(np.array([1.0, 1.2, 10.0], np.float32), 20)[None].repeat(20, axis=0)
    assert occlusion_score(metres) == pytest.approx(2 / 60)  # from 1.2 m to 10 m alone
    assert occlusion_score(1 / metres) == pytest.approx(4 / 60)
