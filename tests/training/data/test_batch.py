"""Batches in the form that ml-4m's model takes, and with what isn't tokens."""

from __future__ import annotations

import numpy as np
import pytest
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.training.data.batch import Batch
from tokenloom.training.data.masking import IGNORED, NOTHING, Scheme
from tokenloom.training.data.mixed import MixedDataset
from tokenloom.training.data.mixture import Mixture
from tokenloom.training.data.ride_along import PIXELS
from training_recipes import BROKEN, illustrated, noise

NAMES = ("caption", "mean_colour", "corners", PIXELS)


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    return noise()


@pytest.fixture(scope="module")
def mixture(tmp_path_factory, pictures) -> Mixture:
    """Of eight pictures, one of which can't be read."""
    reader = open_dataset(illustrated(tmp_path_factory.mktemp("pictures"), pictures)).reader
    both = Scheme(1, dict.fromkeys(NAMES, 1.0), {"caption": 1.0, "mean_colour": 1.0})
    return Mixture([MixedDataset("pictures", reader, NAMES)], [both], (12, 12), (12, 12))


@pytest.fixture(scope="module")
def batch(mixture) -> Batch:
    return mixture.batch(np.arange(64))


def inputs_of(batch: Batch, name: str) -> np.ndarray:
    """bool (n, inputs): where the modality is seen."""
    return batch.inputs.modality == batch.modalities.index(name)


def test_pixels_are_those_of_the_view_and_none_where_there_are_none(batch, pictures):
    found = {row.tobytes() for row in batch.arrays[PIXELS]}
    known = {pixels.tobytes() for key, pixels in pictures.items() if key != BROKEN}
    assert found == {*known, bytes(32 * 32 * 3)}
    seen = inputs_of(batch, PIXELS)
    lacking = ~batch.arrays[PIXELS].any(axis=(1, 2, 3))
    assert lacking.sum() == 8
    assert not seen[lacking].any()
    assert seen[~lacking].any(axis=1).mean() > 0.5
    assert set(batch.inputs.position[seen].tolist()) == {0, 1, 2, 3}  # patches of 16 pixels
    assert set(batch.inputs.ids[seen].tolist()) == {NOTHING}


def test_embeddings_are_what_was_kept(batch, pictures):
    corners, seen = batch.arrays["corners"], inputs_of(batch, "corners")
    assert corners.shape == (64, 3, 4)
    assert corners.dtype == np.float16
    names = {pixels.tobytes(): key for key, pixels in pictures.items()}
    for row in range(64):
        key = names.get(batch.arrays[PIXELS][row].tobytes())
        places = batch.inputs.ids[row][seen[row]]
        if key is None:
            assert not len(places)
            continue
        length = 1 + int(key) % 3
        assert corners[row, :length, 3].tolist() == [1] * length
        assert not corners[row, length:].any()
        np.testing.assert_array_equal(corners[row, 0, :3], (pictures[key][0, 0] / 255).astype(np.float16))
        assert all(-1 <= place < length for place in places)


def test_what_rides_along_is_never_a_target(batch):
    for name in ("corners", PIXELS):
        assert not (batch.targets.modality == batch.modalities.index(name)).any()


def test_samples_of_small_batches_are_those_of_large_ones(mixture, batch):
    for first in (0, 40):
        small = mixture.batch(np.arange(first, first + 8))
        np.testing.assert_array_equal(small.arrays[PIXELS], batch.arrays[PIXELS][first : first + 8])
        np.testing.assert_array_equal(small.inputs.ids, batch.inputs.ids[first : first + 8])


def test_ml_4ms_form_says_the_same(batch):
    made = batch.by_modality()
    assert list(made) == list(NAMES)
    assert batch.targets.labels is not None
    for place, (name, most) in enumerate(zip(NAMES, batch.most, strict=True)):
        tensors, tokens = made[name], 2 * (most + 1) if name == "caption" else most
        assert tensors.input_mask.shape == tensors.target_mask.shape == (64, tokens)
        assert tensors.decoder_attention_mask.shape == (64, tokens)
        for side, mask in ((batch.inputs, tensors.input_mask), (batch.targets, tensors.target_mask)):
            np.testing.assert_array_equal((~mask).sum(axis=1), (side.modality == place).sum(axis=1))
        np.testing.assert_array_equal(
            tensors.decoder_attention_mask.sum(axis=1), (batch.targets.modality == place).sum(axis=1)
        )
        assert not (~tensors.input_mask & ~tensors.target_mask).any()


def test_ml_4ms_texts_are_inputs_and_behind_them_targets(batch):
    made, place = batch.by_modality()["caption"], batch.modalities.index("caption")
    for row in range(64):
        for side, mask in ((batch.inputs, made.input_mask), (batch.targets, made.target_mask)):
            ids = side.ids[row][side.modality[row] == place]
            np.testing.assert_array_equal(made.tensor[row][~mask[row]], ids)
    assert not made.tensor[made.input_mask & made.target_mask].any()


def test_ml_4ms_grids_have_ids_at_their_places(batch):
    made, place = batch.by_modality()["mean_colour"], batch.modalities.index("mean_colour")
    for side, values in ((batch.inputs, batch.inputs.ids), (batch.targets, batch.targets.labels)):
        row, column = np.nonzero(side.modality == place)
        np.testing.assert_array_equal(made.tensor[row, side.position[row, column]], values[row, column])
    first = made.decoder_attention_mask > 0
    assert (first.sum(axis=1) <= 1).all()
    assert not (made.target_mask & first).any()


def test_ml_4ms_embeddings_are_vectors_and_zeros_for_spans(batch):
    made, place = batch.by_modality()["corners"], batch.modalities.index("corners")
    assert made.tensor.shape == (64, 3, 4)
    for row in range(64):
        ids = batch.inputs.ids[row][batch.inputs.modality[row] == place]
        for at, one in enumerate(ids.tolist()):
            expected = np.zeros(4) if one == NOTHING else batch.arrays["corners"][row, one]
            np.testing.assert_array_equal(made.tensor[row, at], expected)
    assert IGNORED not in made.tensor
