"""Parts of texts: pairs and instances as the tokenizers write them, and their order drawn anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenloom.tokenizers.contract.special_tokens import COORDINATE_BINS, EOS, FIRST_COORDINATE, FIRST_WORD
from tokenloom.training.data.draws import keys_of
from tokenloom.training.data.parts import instance_starts, pair_chunks, shuffled

numbers = st.integers(0, COORDINATE_BINS - 1)
words = st.lists(st.integers(FIRST_WORD, FIRST_WORD + 50), min_size=1, max_size=3)


def coordinate(axis: int, value: int) -> int:
    return FIRST_COORDINATE + axis * COORDINATE_BINS + value


@st.composite
def instances(draw: st.DrawFn, opening: bool, codes: int) -> list[int]:
    """One, as detections (a box, words), poses and masks (a word before the box, codes behind) are written."""
    box = [coordinate(axis, draw(numbers)) for axis in range(4)]
    behind = [coordinate(draw(st.integers(0, 1)), draw(numbers)) for _ in range(codes)]
    return [*([FIRST_WORD] if opening else []), *box, *draw(words), *behind]


@pytest.mark.slow
@given(st.data(), st.booleans(), st.sampled_from([0, 16]), st.integers(0, 99))
def test_instances_stay_whole_in_any_order(data: st.DataObject, opening: bool, codes: int, seed: int):
    texts = [data.draw(st.lists(instances(opening, codes), max_size=4)) for _ in range(3)]
    flat = [[token for part in text for token in part] or [FIRST_WORD + 9] for text in texts]
    lengths = np.array([len(text) for text in flat])
    ids = np.full((3, lengths.max() + 2), EOS)
    for row, text in enumerate(flat):
        ids[row, : len(text)] = text
    starts = instance_starts(ids, int(opening))
    assert [int(row.sum()) for row in starts] == [len(text) for text in texts]
    made = shuffled(keys_of(seed, np.arange(3)), ids, lengths, starts)
    np.testing.assert_array_equal(made[:, lengths.max() :], ids[:, lengths.max() :])
    for row, text in enumerate(texts):
        left, parts = made[row, : lengths[row]].tolist(), sorted(text, key=len, reverse=True)
        while left and text:
            part = next(part for part in parts if left[: len(part)] == part)
            parts.remove(part)
            left = left[len(part) :]
        assert not parts
        if not text:
            assert left == flat[row]


def test_every_order_comes_up():
    ids = np.array([[coordinate(axis, one) for one in range(3) for axis in range(4)]])
    keys = keys_of(0, np.arange(300))
    starts = np.broadcast_to(instance_starts(ids, 0), (300, 12))
    made = shuffled(keys, np.broadcast_to(ids, (300, 12)), np.full(300, 12), starts)
    counts = np.unique(made[:, ::4], axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert counts.min() > 25


@given(st.lists(st.tuples(numbers, numbers), max_size=5))
def test_a_records_pairs_are_chunks_and_eos_is_one(pairs: list[tuple[int, int]]):
    ids = [token for field, value in pairs for token in (coordinate(1, field), coordinate(0, value))]
    chunks = pair_chunks(np.array([[*ids, EOS]]))[0].tolist()
    assert chunks == [*sorted([*range(len(pairs))] * 2), len(pairs)]
