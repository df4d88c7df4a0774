"""Losses against what they are defined as, written out in numpy in float64, and against torch's own modules."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays
from tokenloom.tokenizers.fitting.losses import OBJECTIVES, loss

SHAPE = (2, 3, 4, 5)
numbers = arrays(np.float32, SHAPE, elements=st.floats(-100, 100, width=32))
shares = arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))
ids = arrays(np.int64, (2, 4, 5), elements=st.integers(0, 2))


def given_to(objective: str, prediction: np.ndarray, target: np.ndarray) -> float:
    return loss(objective, torch.tensor(prediction), torch.tensor(target)).item()


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


@pytest.mark.slow
@given(numbers, numbers)
def test_errors_of_numbers(prediction, target):
    apart = np.abs(prediction.astype(float) - target)
    assert given_to("mse", prediction, target) == pytest.approx((apart**2).mean(), rel=1e-5)
    assert given_to("l1", prediction, target) == pytest.approx(apart.mean(), rel=1e-5)
    bent = np.where(apart < 1, apart**2 / 2, apart - 0.5).mean()
    assert given_to("smooth_l1", prediction, target) == pytest.approx(bent, rel=1e-5)


@given(numbers, ids)
def test_cross_entropy_is_minus_the_log_of_the_right_classs_share(prediction, target):
    logits = prediction.astype(float)
    log_shares = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    right = np.take_along_axis(log_shares, target[:, None], axis=1)
    assert given_to("cross_entropy", prediction, target) == pytest.approx(-right.mean(), rel=1e-4, abs=1e-5)


@given(numbers, shares)
def test_binary_cross_entropy_is_of_logits(prediction, target):
    logits = prediction.astype(float)
    expected = (target * softplus(-logits) + (1 - target) * softplus(logits)).mean()
    assert given_to("binary_cross_entropy", prediction, target) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(numbers, st.floats(0.1, 10))
def test_cosine_is_blind_to_lengths(vectors, factor):
    vectors = vectors + np.float32(200)  # none is zero
    assert given_to("cosine", vectors, vectors * np.float32(factor)) == pytest.approx(0, abs=1e-6)
    assert given_to("cosine", vectors, -vectors) == pytest.approx(2, abs=1e-6)


def test_cosine_is_along_the_channels():
    right = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    up = torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1)
    assert loss("cosine", right, up).item() == pytest.approx(1)
    both = torch.cat([right, up], dim=2)
    assert loss("cosine", both, torch.cat([right, right], dim=2)).item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("objective", "module"),
    [
        ("mse", torch.nn.MSELoss()),
        ("l1", torch.nn.L1Loss()),
        ("smooth_l1", torch.nn.SmoothL1Loss()),
        ("cross_entropy", torch.nn.CrossEntropyLoss()),
        ("binary_cross_entropy", torch.nn.BCEWithLogitsLoss()),
    ],
)
def test_values_and_gradients_are_those_of_torchs_modules(objective, module):
    torch.manual_seed(0)
    prediction = torch.randn(SHAPE)
    target = torch.randint(3, (2, 4, 5)) if objective == "cross_entropy" else torch.rand(SHAPE)
    ours, theirs = prediction.clone().requires_grad_(), prediction.clone().requires_grad_()
    value, expected = loss(objective, ours, target), module(theirs, target)
    value.backward()
    expected.backward()
    assert torch.equal(value, expected)
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_half_precision_is_summed_in_float32(objective):
    torch.manual_seed(0)
    prediction = torch.randn(SHAPE).bfloat16()
    target = torch.randint(3, (2, 4, 5)) if objective == "cross_entropy" else torch.rand(SHAPE).bfloat16()
    value = loss(objective, prediction, target)
    assert value.dtype == torch.float32
    wide = target if objective == "cross_entropy" else target.float()
    assert torch.equal(value, loss(objective, prediction.float(), wide))


def test_shapes_that_would_be_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 5\).*\(2, 1, 4, 5\)"):
        loss("mse", torch.zeros(SHAPE), torch.zeros(2, 1, 4, 5))
    with pytest.raises(ValueError, match="doesn't fit"):
        loss("cross_entropy", torch.zeros(SHAPE), torch.zeros(2, 4, 4, dtype=torch.long))


def test_an_unknown_objective_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'huber'.*smooth_l1"):
        loss("huber", torch.zeros(1), torch.zeros(1))
