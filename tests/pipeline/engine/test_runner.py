"""One labeler over many samples: batches, bisection, and memory that runs out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_labelers import MeanColour
from tokenloom import Batch, View
from tokenloom.pipeline.engine.runner import Failed, Runner, take


def batch_of(count: int) -> Batch:
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    views = [View(0, 0, 0, 4, 4, False, 4, 4, 4)] * count
    return Batch([str(index) for index in range(count)], images, views, [{}] * count)


class Recording(MeanColour):
    """Remembers the batches; raises for the samples in `bad`, and out of memory above `room` samples."""

    def __init__(self, bad: set[str] = frozenset(), room: int = 10**6) -> None:  # type: ignore[assignment]
        super().__init__()
        self.bad, self.room, self.sizes = bad, room, []

    def label(self, batch: Batch):
        import torch

        self.sizes.append(len(batch))
        if len(batch) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if self.bad & set(batch.keys):
            raise ValueError(f"no: {sorted(self.bad & set(batch.keys))}")
        return super().label(batch)


@given(count=st.integers(1, 40), bad=st.sets(st.integers(0, 39)), size=st.integers(1, 16))
def test_exactly_the_samples_that_raise_fail(count, bad, size):
    labeler = Recording({str(index) for index in bad})
    outcomes = Runner(labeler, ["mean_colour"], size, "cpu").run(batch_of(count))["mean_colour"]
    assert len(outcomes) == count
    for index, outcome in enumerate(outcomes):
        if index in bad:
            assert outcome == Failed(f"no: ['{index}']", "ValueError")
        else:
            assert isinstance(outcome, np.ndarray)
            assert np.allclose(outcome, index / 255)


def test_a_good_batch_goes_through_in_one_piece():
    labeler = Recording()
    Runner(labeler, ["mean_colour"], 32, "cpu").run(batch_of(32))
    assert labeler.sizes == [32]


def test_memory_that_runs_out_halves_the_batch_for_good():
    labeler = Recording(room=5)
    runner = Runner(labeler, ["mean_colour"], 16, "cpu")
    outcomes = runner.run(batch_of(16))["mean_colour"]
    assert not any(isinstance(outcome, Failed) for outcome in outcomes)
    assert labeler.sizes == [16, 8, 4, 4, 4, 4]
    runner.run(batch_of(8))
    assert labeler.sizes[6:] == [4, 4]


def test_a_sample_too_large_by_itself_fails():
    labeler = Recording(room=0)
    outcomes = Runner(labeler, ["mean_colour"], 4, "cpu").run(batch_of(2))["mean_colour"]
    assert [isinstance(outcome, Failed) and outcome.error for outcome in outcomes] == ["OutOfMemoryError"] * 2


@pytest.mark.parametrize("indices", [range(1, 3), [2, 0], []])
def test_taking_samples_takes_all_that_belongs_to_them(indices):
    batch = batch_of(4)
    batch.labels = {"other": [0, 10, 20, 30]}
    taken = take(batch, indices)
    assert taken.keys == [str(index) for index in indices]
    assert taken.images is not None
    assert [int(image[0, 0, 0]) for image in taken.images] == list(indices)
    assert taken.labels == {"other": [10 * index for index in indices]}
