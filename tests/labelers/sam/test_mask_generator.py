from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.labelers.sam.decoder import Look
from tokenloom.labelers.sam.mask_generator import (
    Bands,
    Canvas,
    MaskGeneratorParams,
    crop_boxes,
    find_in_crop,
    measure,
    point_grid,
    without_holes,
    without_islands,
)
from tokenloom.labelers.sam.models import scaling
from torch.nn.functional import interpolate

amg = pytest.importorskip("segment_anything.utils.amg")

sizes = st.integers(1, 700)


def smooth_logits(seed, count, rows, columns):
    """Random blobs, both signs, some far above and some near the thresholds."""
    coarse = torch.randn(1, count, 4, 4, generator=torch.Generator().manual_seed(seed)) * 4
    return interpolate(coarse, (rows, columns), mode="bilinear")[0]


def canvas_for(height, width, covered=(256, 256), length=64):
    rows, columns = (
        Bands.of(scaling(length, 256, cover, size, "cpu")) for cover, size in zip(covered, (height, width), strict=True)
    )
    return Canvas(rows, columns)


@settings(max_examples=25)
@given(sizes, sizes, st.integers(1, 256), st.integers(1, 256), st.integers(0, 99))
def test_drawing_is_what_two_interpolations_make(height, width, cover_y, cover_x, seed):
    logits = smooth_logits(seed, 2, 64, 64)
    canvas = canvas_for(height, width, (cover_y, cover_x))
    drawn = canvas.draw(logits[:, : canvas.rows.length, : canvas.columns.length])
    whole = interpolate(logits[None], (256, 256), mode="bilinear", align_corners=False)[..., :cover_y, :cover_x]
    expected = interpolate(whole, (height, width), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(drawn.transpose(1, 2), expected, atol=2e-5)


@settings(max_examples=25)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 99), st.sampled_from([0.0, 0.5, 0.95]))
def test_stability_and_boxes_are_the_references(height, width, seed, threshold):
    logits = smooth_logits(seed, 5, 64, 64)
    logits[0], logits[1] = -9, 9  # an empty mask, and one that covers everything
    canvas = canvas_for(height, width)
    params = MaskGeneratorParams(stability_score_thresh=threshold)
    kept, stability, boxes = measure(canvas, logits, params)
    drawn = canvas.draw(logits).transpose(1, 2)
    expected = amg.calculate_stability_score(drawn, 0.0, 1.0)
    assert torch.equal(torch.isnan(stability), torch.isnan(expected))
    assert torch.equal(stability.nan_to_num(), expected.nan_to_num())
    passes = expected >= threshold if threshold > 0 else ~torch.isnan(expected)
    assert torch.equal(kept, passes & (drawn > 0).any(dim=2).any(dim=1))
    assert torch.equal(boxes[kept], amg.batched_mask_to_box(drawn > 0)[kept])
    assert boxes[1].tolist() == [0, 0, width - 1, height - 1]


@settings(max_examples=40)
@given(sizes, sizes, st.integers(0, 3), st.floats(0, 0.9), st.integers(1, 2), st.integers(1, 20))
def test_crops_and_grids_are_the_references(height, width, layers, overlap, thinner, side):
    params = MaskGeneratorParams(crop_n_layers=layers, crop_overlap_ratio=overlap)
    boxes, layer_of = amg.generate_crop_boxes((height, width), layers, overlap)
    assert list(crop_boxes((height, width, 3), params)) == [
        (tuple(box), layer) for box, layer in zip(boxes, layer_of, strict=True)
    ]
    np.testing.assert_allclose(point_grid(side), amg.build_point_grid(side), atol=1e-15)


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 999), st.integers(1, 60), st.floats(0.05, 0.95))
def test_holes_and_islands_are_the_references(height, width, seed, area, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    for mode, ours in (("holes", without_holes), ("islands", without_islands)):
        if mode == "holes" or mask.any():  # the reference fails on islands of an empty mask
            expected, had_any = amg.remove_small_regions(mask, area, mode)
            found, found_any = ours(mask, area)
            assert np.array_equal(found, expected)
            assert found_any == had_any


def painter(quality, logits) -> Any:
    """A model that makes these masks at its only point: quality (masks,), logits (masks, 64, 64)."""
    decoder = SimpleNamespace(
        look=lambda seen, prompts: Look(quality[None], quality[None], quality[None]),
        draw=lambda seen, look, wanted, height, width: logits[wanted[0], :height, :width],
    )
    side = logits.shape[1]
    return SimpleNamespace(
        decoder=decoder,
        device="cpu",
        prompts_at_once=1,
        prompts=lambda points, height, width: torch.zeros(len(points), 2, 8),
        spread=lambda height, width: (
            scaling(side, side, side, height, "cpu"),
            scaling(side, side, side, width, "cpu"),
        ),
    )


def box_logits(*boxes):
    """Logits of 9 in a box x0 y0 x1 y1 and -9 elsewhere, with an edge of one cell."""
    logits = torch.full((len(boxes), 64, 64), -9.0)
    for place, (x0, y0, x1, y1) in zip(logits, boxes, strict=True):
        place[y0:y1, x0:x1] = 9
    return logits


def test_filters_cut_where_the_reference_does():
    """Predicted IoU must be above its threshold, stability at least it; duplicates go, the surest mask stays."""
    logits = box_logits((8, 8, 32, 32), (9, 8, 33, 32), (40, 40, 60, 60), (2, 40, 20, 60))
    logits[3] /= 18  # values in +-0.5: unstable
    quality = torch.tensor([0.90, 0.95, 0.88, 0.99])
    model = painter(quality, logits)
    params = MaskGeneratorParams(pred_iou_thresh=0.88)
    found = find_in_crop(model, None, (64, 64), (0, 0, 64, 64), point_grid(1), params)
    assert found.quality.tolist() == pytest.approx([0.95])
    found = find_in_crop(
        model, None, (64, 64), (0, 0, 64, 64), point_grid(1), params.model_copy(update={"pred_iou_thresh": 0.87})
    )
    assert found.quality.tolist() == pytest.approx([0.95, 0.88])
    assert found.points.tolist() == [[32, 32]] * 2


def test_masks_cut_off_by_a_crop_are_dropped_but_not_those_at_the_images_border():
    logits = box_logits((0, 0, 20, 20), (44, 20, 64, 40), (24, 24, 40, 40))
    model = painter(torch.tensor([0.9, 0.9, 0.9]), logits)
    found = find_in_crop(model, None, (500, 500), (0, 0, 250, 250), point_grid(1), MaskGeneratorParams())
    boxes = {tuple(box) for box in found.boxes.tolist()}
    assert len(boxes) == 2
    assert (0, 0, 77, 77) in boxes
    moved = find_in_crop(model, None, (500, 500), (250, 250, 500, 500), point_grid(1), MaskGeneratorParams())
    assert moved.points.tolist() == [[375, 375]] * 2
    assert (422, 328, 499, 405) in {tuple(box) for box in moved.boxes.tolist()}  # at the image's right border
