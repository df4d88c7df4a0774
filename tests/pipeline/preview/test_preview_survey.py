"""The preview's statistics: the maths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenloom.labelers.contract.kinds import FeatureMap, Text
from tokenloom.pipeline.preview.survey import length_bars, perplexity, rank_bars, stated_loss
from tokenloom.tokenizers.codebooks.codebook import Codebook
from tokenloom.tokenizers.text.wordpiece import WordPiece

counts_of_codes = st.lists(st.integers(0, 1000), min_size=1, max_size=200).map(np.array)


@given(st.integers(1, 500), st.integers(1, 100))
def test_perplexity_of_equally_frequent_codes_is_their_number(codes, times):
    counts = np.concatenate([np.full(codes, times), np.zeros(17, int)])
    assert perplexity(counts) == pytest.approx(codes)


@given(counts_of_codes)
def test_perplexity_lies_between_one_and_the_number_of_used_codes(counts):
    used = (counts > 0).sum()
    assert min(1, used) - 1e-9 <= perplexity(counts) <= used + 1e-9


def test_perplexity_of_no_codes_is_zero():
    assert perplexity(np.zeros(5, int)) == 0


@given(counts_of_codes)
def test_rank_bars_fall_and_hold_every_used_code(counts):
    used = (counts > 0).sum()
    bars = rank_bars(counts, 48)
    assert len(bars) == min(48, used)
    assert bars == sorted(bars, reverse=True)
    if used <= 48:
        assert bars == sorted(counts[counts > 0].tolist(), reverse=True)


@given(st.dictionaries(st.integers(0, 3000), st.integers(1, 100), max_size=50))
def test_length_bars_hold_every_row_once(lengths):
    bars = length_bars(lengths)
    assert len(bars) <= 24
    assert sum(rows for *_, rows in bars) == sum(lengths.values())
    for low, high, rows in bars:
        assert rows == sum(times for length, times in lengths.items() if low <= length <= high)
    if lengths:
        assert (bars[0][0], bars[-1][1]) == (min(lengths), max(lengths))


def test_tokenizers_state_their_loss():
    assert "lower case" in stated_loss(WordPiece(Text()))
    assert "cosine_distance" in stated_loss(Codebook(FeatureMap(4, 2, 2)))
