"""The nearest vectors, against all of them at once, whatever parts they come in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tokenloom.training.retrieval.nearest import Part, nearest


@given(st.data())
def test_parts_make_no_difference(data):
    """Vectors of small whole numbers, so that many are equal, some are zero, and many point the same way."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    sizes = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=6))
    count = data.draw(st.integers(1, 12))
    vectors = rng.integers(-1, 2, (sum(sizes), 5)).astype(np.float32)
    query = rng.integers(-2, 3, 5).astype(np.float32)
    keys = [f"{key:02}" for key in rng.permutation(len(vectors))]
    ends = np.cumsum(sizes)
    parts = [
        Part(place, keys[end - size : end], range(size), vectors[end - size : end])
        for place, (size, end) in enumerate(zip(sizes, ends, strict=True))
    ]
    wide = query.astype(float)
    lengths = [float(np.sqrt(wide @ wide) * np.sqrt(one @ one)) for one in vectors.astype(float)]
    scores = [np.float32(wide @ one / length if length else 0) for one, length in zip(vectors, lengths, strict=True)]
    expected = sorted(zip([-score for score in scores], keys, strict=True))[:count]
    found = nearest(query, parts, count)
    assert [hit.key for hit in found] == [key for _, key in expected]
    np.testing.assert_array_equal([-hit.score for hit in found], [score for score, _ in expected])
    for hit in found:
        assert parts[hit.place].keys[hit.row] == hit.key
