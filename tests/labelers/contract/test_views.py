"""Views: inside the image whatever its size, the same for ever, and spread as they should be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenloom.labelers.contract.views import View, ViewSettings, cut_view

sides = st.integers(1, 20_000)
GOLDEN = [
    View(1, 6, 10, 358, 464, False, 224, 375, 500),
    View(2, 137, 147, 308, 282, False, 448, 480, 640),
    View(3, 0, 2499, 1, 1, True, 224, 1, 5000),
]


@given(st.integers(), st.text(), st.integers(0, 50), sides, sides, st.floats(0.01, 1))
def test_every_crop_lies_inside(seed: int, key: str, index: int, height: int, width: int, min_scale: float):
    view = cut_view(seed, key, index, height, width, ViewSettings(min_scale=min_scale))
    assert 0 <= view.top <= view.top + view.height <= height
    assert 0 <= view.left <= view.left + view.width <= width
    assert view.height > 0
    assert view.width > 0
    assert (view.index, view.size, view.image_height, view.image_width) == (index, 224, height, width)


@given(st.integers(), st.text(), sides, sides)
def test_view_0_is_the_centred_square(seed: int, key: str, height: int, width: int):
    view = cut_view(seed, key, 0, height, width, ViewSettings())
    assert view.height == view.width == min(height, width)
    assert not view.hflip
    assert abs(2 * view.top + view.height - height) <= 1
    assert abs(2 * view.left + view.width - width) <= 1


@given(st.text(st.characters()), st.integers(1, 5))
def test_any_key_even_half_a_surrogate_pair(key: str, index: int):
    assert cut_view(0, key + "\ud800", index, 300, 400, ViewSettings()).height > 0


def test_golden_views():
    """Views that datasets out there were cut by: they may never change."""
    assert cut_view(0, "a", 0, 375, 500, ViewSettings()) == View(0, 0, 62, 375, 375, False, 224, 375, 500)
    assert cut_view(0, "a", 1, 375, 500, ViewSettings()) == GOLDEN[0]
    assert cut_view(7, "kitchen/01é", 2, 480, 640, ViewSettings(size=448, min_scale=0.2)) == GOLDEN[1]
    assert cut_view(0, "thin", 3, 1, 5000, ViewSettings()) == GOLDEN[2]


def test_views_differ_by_seed_key_and_index():
    views = {
        (view.top, view.left, view.height, view.width, view.hflip)
        for view in (
            cut_view(seed, key, index, 3000, 4000, ViewSettings(min_scale=0.3))
            for seed in (0, 1)
            for key in ("a", "b", "1/a")
            for index in (1, 2, 11)
        )
    }
    assert len(views) == 18


def test_random_views_are_spread_as_said():
    views = [cut_view(0, str(key), 1, 1000, 1000, ViewSettings(min_scale=0.5)) for key in range(2000)]
    areas = [view.height * view.width / 1e6 for view in views]
    ratios = [view.width / view.height for view in views]
    assert sum(view.hflip for view in views) / 2000 == pytest.approx(0.5, abs=0.04)
    assert min(areas) == pytest.approx(0.5, abs=0.02)
    assert 0.65 < sum(areas) / 2000 < 0.76
    assert min(ratios) >= 0.74
    assert max(ratios) <= 1.35
    assert sum(ratio > 1 for ratio in ratios) / 2000 == pytest.approx(0.5, abs=0.04)
    slack = [(view.top + 0.5) / (1000 - view.height + 1) for view in views]
    assert sum(slack) / 2000 == pytest.approx(0.5, abs=0.03)
