import warnings

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.networks.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing, feature_maps

HALF = (0.5, 0.5, 0.5)
SIDES = st.integers(1, 40)


@settings(max_examples=30)
@given(SIDES, SIDES, st.integers(1, 3), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_equals_the_processors_of_transformers_at_any_size(height, width, count, size, seed):
    from transformers import BitImageProcessor, DINOv3ViTImageProcessor, Siglip2ImageProcessor, SiglipImageProcessor

    images = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    square = {"height": size, "width": size}
    processors = {
        Preprocessing(size, CLIP_MEAN, CLIP_STD): BitImageProcessor(size=square, do_center_crop=False),
        Preprocessing(size, interpolation="bilinear", resize_floats=True): DINOv3ViTImageProcessor(size=square),
        Preprocessing(size, HALF, HALF): SiglipImageProcessor(size=square),
    }
    for preprocessing, processor in processors.items():
        expected = processor(list(images), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
        torch.testing.assert_close(preprocessing(images, "cpu"), expected, rtol=0, atol=2e-5)
    assert Siglip2ImageProcessor.resample == Image.Resampling.BILINEAR  # as labelers.siglip takes it


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resizes_as_pillow_does_to_one_grey_level(photographs, interpolation):
    photo = photographs["chelsea"]
    found = Preprocessing(100, (0.0,) * 3, (1 / 255,) * 3, interpolation)(photo[None], "cpu")[0].permute(1, 2, 0)
    expected = Image.fromarray(photo).resize((100, 100), Image.Resampling[interpolation.upper()])
    assert np.abs(found.numpy() - np.asarray(expected, np.float32)).max() <= 1.001


def test_a_read_only_view_is_neither_written_to_nor_warned_of(photographs):
    view = photographs["coffee"][None].copy()
    view.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = Preprocessing(224)(view, "cpu")
    pixels.zero_()
    assert np.array_equal(view[0], photographs["coffee"])


def test_takes_the_numbers_of_the_checkpoints_own_processor(tmp_path):
    from transformers import SiglipImageProcessor

    plain = Preprocessing(224)
    assert plain.as_in(str(tmp_path)) == plain
    SiglipImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], resample=2).save_pretrained(tmp_path)
    assert plain.as_in(str(tmp_path)) == Preprocessing(224, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")
    SiglipImageProcessor(resample=0).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="resample 0; bilinear"):
        plain.as_in(str(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="its processor can't be read"):
        plain.as_in(str(tmp_path))


@given(arrays.arrays(np.float16, st.tuples(st.integers(1, 3), st.just(9), st.integers(1, 5))))
def test_feature_maps_lay_tokens_out_row_by_row(tokens):
    maps = feature_maps(torch.from_numpy(tokens), grid=3)
    for image, label in zip(tokens, maps, strict=True):
        assert label.dtype == np.float16
        assert label.flags.c_contiguous
        for index in range(9):
            np.testing.assert_array_equal(label[:, index // 3, index % 3], image[index])
