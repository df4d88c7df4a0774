"""Labels as networks take them: normalisation and its inverse, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.labelers.contract.kinds import FeatureMap, Image, Kind, Text, Vector
from tokenloom.labelers.contract.poses import nearest_rotations
from tokenloom.tokenizers.vq.input_contract import (
    MASK_CONTRACT,
    POSE_CONTRACT,
    ContractError,
    InputContract,
    contract_for,
    standardise_depth,
    with_statistics,
)

RGB, EDGES = Image(), Image(channels=1, content="intensity")
DEPTH = Image(channels=1, dtype="float32", content="intensity", unit="metre")
NORMALS, UNIT_NORMALS = Image(content="normals"), Image(content="normals", dtype="float32")
CLASSES = Image(channels=1, content="classes", classes=133)
WIDE_CLASSES = Image(channels=1, dtype="uint16", content="classes", classes=3000)
FEATURES, VECTOR = FeatureMap(12, 5, 5), Vector(7)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def through(contract: InputContract, *labels: np.ndarray) -> torch.Tensor:
    return contract.to_network(torch.from_numpy(np.stack([contract.example(label) for label in labels])))


def label_of(kind: Kind, seed: int = 0) -> np.ndarray:
    generator = rng(seed)
    if isinstance(kind, FeatureMap):
        return (3 * generator.standard_normal((kind.channels, kind.height, kind.width)) + 1).astype(np.float16)
    if isinstance(kind, Vector):
        return generator.standard_normal(kind.dim).astype(np.float32)
    assert isinstance(kind, Image)
    shape = (6, 8) if kind.channels == 1 else (6, 8, kind.channels)
    if kind.content == "classes":
        assert kind.classes is not None
        void = np.iinfo(kind.dtype).max
        return generator.choice([0, 1, 5, kind.classes - 1, void], shape).astype(kind.dtype)
    if kind.dtype == "float32":
        numbers = generator.standard_normal(shape)
        return (numbers / np.linalg.norm(numbers, axis=-1, keepdims=True) if kind.channels == 3 else numbers).astype(
            "f4"
        )
    return generator.integers(0, np.iinfo(kind.dtype).max + 1, shape).astype(kind.dtype)


EXACT = [RGB, EDGES, UNIT_NORMALS, FEATURES, VECTOR, Image(dtype="uint16"), Image(channels=4)]


@pytest.mark.parametrize("kind", EXACT, ids=lambda kind: f"{kind.name}-{getattr(kind, 'content', '')}")
def test_a_network_that_gives_back_its_input_gives_back_the_label(kind):
    label = label_of(kind)
    height, width = (6, 8) if isinstance(kind, Image) else (1, 1)
    contract = contract_for(kind, height, width)
    for one in (contract, with_statistics(contract, np.stack([label, label_of(kind, 1)]))):
        assert one == InputContract.model_validate(one.model_dump(mode="json"))
        if one.length is not None:
            continue
        (back,) = one.from_network(through(one, label))
        kind.check(back)
        assert back.dtype == label.dtype
        np.testing.assert_allclose(back, label, atol=2e-3 if kind is FEATURES else 1e-6)


def test_images_lie_in_minus_one_to_one_channels_first():
    label = np.zeros((2, 2, 3), np.uint8)
    label[0, 1] = 255, 51, 0
    batch = through(contract_for(RGB, 2, 2), label, label)
    assert (batch.shape, batch.dtype) == ((2, 3, 2, 2), torch.float32)
    np.testing.assert_allclose(batch[1, :, 0, 1], [1, -0.6, -1], atol=1e-6)
    assert (batch[0, :, 1] == -1).all()
    edges = through(contract_for(EDGES, 1, 2), np.array([[0, 255]], np.uint8))
    assert edges.tolist() == [[[[-1, 1]]]]


def test_labels_stay_as_they_are():
    for kind in (RGB, DEPTH, FEATURES, VECTOR, CLASSES):
        label = label_of(kind)
        before = label.copy()
        through(contract_for(kind, 6, 8), label)
        np.testing.assert_array_equal(label, before)


def test_what_a_network_overshoots_takes_the_nearest_value():
    (label,) = contract_for(RGB, 1, 1).from_network(torch.tensor([1.5, -1.5, 0.0]).view(1, 3, 1, 1))
    assert label.tolist() == [[[255, 0, 128]]]
    (features,) = contract_for(FeatureMap(1, 1, 1), 1, 1).from_network(torch.tensor([[[[1e9]]]]))
    FeatureMap(1, 1, 1).check(features)


# depth


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 1e3), shift=st.floats(-100, 100))
def test_depth_forgets_scale_and_shift(seed, scale, shift):
    depth = rng(seed).gamma(2, 1, (9, 11)).astype(np.float32)
    contract = contract_for(DEPTH, 9, 11)
    first, second = through(contract, depth, (scale * depth + shift).astype(np.float32))
    np.testing.assert_allclose(first, second, atol=2e-3 * max(1, abs(shift) / scale))


def test_depth_is_standardised_by_the_middle_of_its_pixels():
    """Against the definition, pixel by pixel: ml-4m sorts, cuts 10 % at either end, and takes the unbiased variance."""
    depth = rng().random((16, 16)).astype(np.float32)
    depth[0] = 1e6
    middle = np.sort(depth.ravel().astype(np.float64))[25:230]
    wanted = (depth - middle.mean()) / np.sqrt(middle.var(ddof=1) + 1e-6)
    (batch,) = through(contract_for(DEPTH, 16, 16), depth)
    np.testing.assert_allclose(batch[0], wanted, rtol=1e-4)
    (decoded,) = contract_for(DEPTH, 16, 16).from_network(batch[None])
    np.testing.assert_array_equal(decoded, batch[0])


def test_flat_depth_is_finite():
    assert torch.isfinite(standardise_depth(torch.full((1, 8, 8), 3.0))).all()
    with pytest.raises(ContractError, match="too small"):
        standardise_depth(torch.ones(1, 1, 1))


# classes and normals


@pytest.mark.parametrize("kind", [CLASSES, WIDE_CLASSES], ids=["uint8", "uint16"])
def test_classes_are_moved_up_by_void(kind):
    label = label_of(kind)
    contract = contract_for(kind, 6, 8)
    batch = through(contract, label)
    assert batch.dtype == torch.int64
    void = np.iinfo(kind.dtype).max
    np.testing.assert_array_equal(batch[0].numpy(), np.where(label == void, 0, label.astype(np.int64) + 1))
    logits = torch.nn.functional.one_hot(batch, kind.classes + 1).permute(0, 3, 1, 2).float()
    (back,) = contract.from_network(logits)
    np.testing.assert_array_equal(back, label)
    assert back.dtype == label.dtype


def test_classes_outside_are_named():
    label = np.full((6, 8), 133, np.uint8)
    with pytest.raises(ContractError, match=r"holds the id 133; its tokenizer takes 0\.\.132 and 255"):
        contract_for(CLASSES, 6, 8).example(label)


def test_normals_come_back_as_unit_vectors():
    direction = torch.tensor([1.0, 2.0, -2.0]) / 3
    output = (0.7 * direction).view(1, 3, 1, 1)
    (floats,) = contract_for(UNIT_NORMALS, 1, 1).from_network(output)
    np.testing.assert_allclose(floats[0, 0], direction, atol=1e-6)
    (integers,) = contract_for(NORMALS, 1, 1).from_network(output)
    np.testing.assert_array_equal(integers[0, 0], np.rint((direction.numpy() + 1) / 2 * 255))


# statistics


def test_features_are_standardised_by_the_sample():
    sample = np.stack([label_of(FEATURES, seed) for seed in range(100)])
    sample[:, 3] = 2.5
    contract = with_statistics(contract_for(FEATURES, 1, 1), sample)
    batch = contract.to_network(torch.from_numpy(sample)).double()
    np.testing.assert_allclose(batch.mean(dim=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(batch[:, 4:].std(dim=(0, 2, 3)), 1, atol=1e-3)
    assert (batch[:, 3] == 0).all()
    assert "fitted sample" in contract.source


def test_decoded_vectors_have_the_sample_s_mean_length():
    sample = np.stack([5 * label_of(VECTOR, seed) for seed in range(50)])
    contract = with_statistics(contract_for(VECTOR, 1, 1), sample)
    batch = contract.to_network(torch.from_numpy(sample))
    assert batch.shape == (50, 7, 1, 1)
    assert float(batch.square().mean()) == pytest.approx(1, rel=1e-4)
    (back,) = contract.from_network(batch[:1])
    length = np.linalg.norm(sample, axis=1).mean()
    np.testing.assert_allclose(back, sample[0] / np.linalg.norm(sample[0]) * length, rtol=1e-4)


def test_other_contracts_have_no_statistics():
    contract = contract_for(RGB, 6, 8)
    assert with_statistics(contract, label_of(RGB)[None]) == contract


# masks and poses


def test_masks():
    mask = rng().integers(0, 2, (64, 64)).astype(np.uint8)
    batch = through(MASK_CONTRACT, mask)
    np.testing.assert_array_equal(batch[0, 0], mask)
    (back,) = MASK_CONTRACT.from_network(20 * batch - 10)
    np.testing.assert_allclose(back, mask, atol=1e-4)
    with pytest.raises(ContractError, match="holds 255"):
        MASK_CONTRACT.example(255 * mask)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_poses_come_back_as_the_nearest_rotations(seed):
    rotations = nearest_rotations(rng(seed).standard_normal((23, 3, 3)).astype(np.float32))
    batch = through(POSE_CONTRACT, rotations)
    assert batch.shape == (1, 207, 1, 1)
    (back,) = POSE_CONTRACT.from_network(batch)
    np.testing.assert_allclose(back, rotations, atol=1e-5)
    noisy = rotations + 0.5 * rng(seed + 1).standard_normal((23, 3, 3))
    found = nearest_rotations(noisy)
    np.testing.assert_allclose(found @ found.swapaxes(-1, -2), np.tile(np.eye(3), (23, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(found), 1, atol=1e-6)
    others = nearest_rotations(rng(seed + 2).standard_normal((23, 3, 3)))
    assert (np.linalg.norm(noisy - found, axis=(1, 2)) <= np.linalg.norm(noisy - others, axis=(1, 2)) + 1e-9).all()


# what is refused


@pytest.mark.parametrize("kind", [RGB, DEPTH, FEATURES, VECTOR, CLASSES])
def test_bad_labels_are_named(kind):
    contract = contract_for(kind, 6, 8)
    good = label_of(kind)
    with pytest.raises(ContractError, match="not a numpy array"):
        contract.example(good.tolist())
    with pytest.raises(ContractError, match="has dtype int64"):
        contract.example(good.astype(np.int64))
    with pytest.raises(ContractError, match=rf"has shape \({good.shape[0] + 1}"):
        contract.example(np.concatenate([good, good[:1]]))
    if good.dtype.kind == "f":
        for bad in (np.nan, np.inf, -np.inf):
            broken = good.copy()
            broken.flat[[0, 2]] = bad
            with pytest.raises(
                ContractError, match=f"2 of a {contract.form} label's {good.size} numbers are NaN or inf"
            ):
                contract.example(broken)


REFUSED: list[tuple[Any, str]] = [
    (Image(dtype="float32"), "no known range"),
    (Image(channels=1, content="classes"), "says how many"),
    (Image(channels=1, content="classes", classes=256), "256 classes leave no id"),
    (Image(channels=2, content="normals"), "3 channels, not 2"),
    (Image(channels=2, dtype="float32", content="intensity"), "1 channel, not 2"),
    (Text(), "'text' aren't"),
]


@pytest.mark.parametrize(("kind", "message"), REFUSED)
def test_kinds_without_a_contract_are_refused(kind, message):
    with pytest.raises(ValueError, match=message):
        contract_for(kind, 8, 8)


def test_every_contract_says_where_its_normalisation_is_from():
    for kind in (RGB, EDGES, DEPTH, NORMALS, CLASSES, FEATURES, VECTOR):
        assert contract_for(kind, 6, 8).source
    assert MASK_CONTRACT.source
    assert POSE_CONTRACT.source
