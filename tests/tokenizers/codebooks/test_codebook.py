"""Codebooks: stated loss, independence of batch and threads, state, and refusal of what they weren't made for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.labelers.contract.kinds import FeatureMap, Image, Vector
from tokenloom.tokenizers.codebooks.codebook import (
    POINTS_PER_CODE,
    Codebook,
    CodebookParams,
    FittedTokenizer,
    PatchCodebook,
    PatchParams,
    ProductCodebook,
    ProductParams,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def feature_maps(count: int = 30, channels: int = 12, height: int = 4, width: int = 5) -> list[np.ndarray]:
    """Maps whose cells lie around 10 directions, at lengths from 1 to 5."""
    centres = rng(1).normal(size=(10, channels))
    cells = (
        centres[rng(2).integers(10, size=(count, height, width))]
        + rng(3).normal(size=(count, height, width, channels)) / 5
    )
    return list((cells * rng(4).uniform(1, 5, size=(count, height, width, 1))).transpose(0, 3, 1, 2).astype(np.float16))


def photographs(count: int = 8, size: int = 48) -> list[np.ndarray]:
    from skimage import data

    astronaut = data.astronaut()
    corners = rng(5).integers(0, 512 - size, size=(count, 2))
    return [np.ascontiguousarray(astronaut[top : top + size, left : left + size]) for top, left in corners]


def fitted(tokenizer: FittedTokenizer, labels, seed: int = 0):
    tokenizer.fit(iter(labels), seed)
    return tokenizer


def check_contract(tokenizer: FittedTokenizer, labels: list[np.ndarray]) -> list[np.ndarray]:
    """Bounds, dtype, shape, state and independence of the batch; gives what the labels decode to."""
    spec, tokens = tokenizer.spec, tokenizer.encode(labels)
    assert not tokenizer.needs_fit
    assert spec.length == spec.max_length
    if spec.grid:
        assert spec.grid[0] * spec.grid[1] == spec.length
    again = type(tokenizer).from_files(tokenizer.kind, tokenizer.to_files())
    assert again.to_files() == tokenizer.to_files()
    assert again.spec == spec
    for label, ids, same, backwards in zip(
        labels, tokens, again.encode(labels), tokenizer.encode(labels[::-1])[::-1], strict=True
    ):
        assert ids.dtype == spec.dtype
        assert ids.shape == (spec.length,)
        assert (ids < spec.vocabulary).all()
        np.testing.assert_array_equal(ids, same)
        np.testing.assert_array_equal(ids, backwards)
        np.testing.assert_array_equal(ids, tokenizer.encode([label])[0])
    decoded = tokenizer.decode(tokens)
    for label, back in zip(labels, decoded, strict=True):
        tokenizer.kind.check(back)
        assert back.shape == label.shape
        assert back.dtype == label.dtype
    for ids, twice in zip(tokens, tokenizer.encode(decoded), strict=True):
        assert (ids == twice).mean() > 0.95  # codes decode to what encodes to them, up to rounding
    assert tokenizer.encode([]) == []
    return decoded


def cosine_distance(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return float((1 - (first * second).sum(axis=-1) / norms).mean())


def test_codebook_keeps_its_stated_loss():
    labels = feature_maps()
    tokenizer = fitted(Codebook(FeatureMap(12, 4, 5), CodebookParams(size=40, iterations=20)), labels)
    decoded = np.stack(check_contract(tokenizer, labels))
    cells = (np.moveaxis(np.stack(labels), 1, -1), np.moveaxis(decoded, 1, -1))
    stated = tokenizer.facts["loss"]["cosine_distance"]
    assert cosine_distance(*cells) == pytest.approx(stated, abs=1e-4)
    assert 0 < stated < 0.03
    assert (tokenizer.spec.type, tokenizer.spec.grid, tokenizer.spec.vocabulary) == ("grid", (4, 5), 40)
    assert np.linalg.norm(cells[1], axis=-1).mean() == pytest.approx(np.linalg.norm(cells[0], axis=-1).mean(), rel=0.05)


def test_product_codebook_keeps_its_stated_loss():
    labels = list(rng().normal(size=(400, 50)).astype(np.float32))
    tokenizer = fitted(ProductCodebook(Vector(50), ProductParams(size=64)), labels)
    decoded = check_contract(tokenizer, labels)
    stated = tokenizer.facts["loss"]["cosine_distance"]
    assert cosine_distance(np.stack(labels), np.stack(decoded)) == pytest.approx(stated, abs=1e-6)
    assert stated < 0.1
    assert (tokenizer.spec.type, tokenizer.spec.length, tokenizer.spec.vocabulary) == ("vector", 16, 64)


def test_a_vector_shorter_than_the_parts():
    labels = list(rng().normal(size=(100, 5)).astype(np.float32))
    tokenizer = fitted(ProductCodebook(Vector(5)), labels)
    check_contract(tokenizer, labels)
    assert tokenizer.spec.length == 5


PATCH_CASES = [
    (Image(), lambda rgb: rgb, 255),
    (Image(1, "uint8", "intensity"), lambda rgb: np.ascontiguousarray(rgb[..., 0]), 255),
    (Image(1, "uint16", "intensity"), lambda rgb: rgb[..., 0].astype(np.uint16) * 257, 65535),
    (Image(1, "float32", "intensity"), lambda rgb: rgb[..., 0].astype(np.float32) - 1000, None),
    (Image(3, "float32", "normals"), lambda rgb: rgb.astype(np.float32) / 127.5 - 1, None),
]


@pytest.mark.parametrize(
    ("kind", "convert", "peak"), PATCH_CASES, ids=[f"{kind.dtype}-{kind.content}" for kind, *_ in PATCH_CASES]
)
def test_patch_codebook_keeps_its_stated_loss(kind, convert, peak):
    labels = [convert(photograph) for photograph in photographs()]
    tokenizer = fitted(PatchCodebook(kind, PatchParams(patch_size=8)), labels)
    decoded = check_contract(tokenizer, labels)
    error = np.stack(decoded).astype(np.float64) - np.stack(labels)
    loss = tokenizer.facts["loss"]
    rounding = 0.5 if peak else 1e-3
    assert np.abs(error).mean() == pytest.approx(loss["mae"], abs=rounding)
    peak = peak or np.ptp(np.stack(labels))
    assert 10 * np.log10(peak**2 / np.square(error).mean()) == pytest.approx(loss["psnr"], abs=0.1)
    assert loss["psnr"] > 18
    assert tokenizer.spec.grid == (6, 6)


def test_patches_that_do_not_divide_the_image():
    labels = photographs(size=37)
    tokenizer = fitted(PatchCodebook(Image(), PatchParams(patch_size=8)), labels)
    assert [image.shape for image in check_contract(tokenizer, labels)] == [(37, 37, 3)] * len(labels)
    assert tokenizer.spec.grid == (5, 5)


def test_flat_images_lose_nothing():
    labels = [np.full((16, 16), value, np.uint8) for value in (0, 255, 0, 255) for _ in range(20)]
    tokenizer = fitted(PatchCodebook(Image(1, "uint8", "intensity")), labels)
    np.testing.assert_array_equal(check_contract(tokenizer, labels), labels)
    assert tokenizer.facts["loss"] == {"mae": 0.0, "psnr": None}
    assert tokenizer.spec.vocabulary == 2


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 50))
def test_codes_are_capped_to_what_the_sample_supports(count, size):
    labels = list(rng(count).normal(size=(count, 6)).astype(np.float32))
    tokenizer = fitted(ProductCodebook(Vector(6), ProductParams(size=size, parts=2)), labels)
    assert tokenizer.spec.vocabulary == max(1, min(size, count // POINTS_PER_CODE))
    assert ("note" in tokenizer.facts) == (tokenizer.spec.vocabulary < size)
    config = json.loads(tokenizer.to_files()["config.json"])
    assert config["fit"]["codes"] == tokenizer.spec.vocabulary
    assert config["fit"]["sample"] == count


def test_fitting_is_deterministic_and_depends_on_the_seed():
    labels = feature_maps()
    params = CodebookParams(size=25, sample=200)
    first, same, other = (fitted(Codebook(FeatureMap(12, 4, 5), params), labels, seed).to_files() for seed in (0, 0, 1))
    assert first == same
    assert first["model.safetensors"] != other["model.safetensors"]
    assert json.loads(first["config.json"])["fit"]["sample"] == 200


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.floats(1e-3, 100))
def test_any_map_decodes_to_the_nearest_direction(seed, count, scale):
    kind = FeatureMap(12, 4, 5)
    tokenizer = CODEBOOK
    labels = list((rng(seed).normal(size=(count, 12, 4, 5)) * scale).astype(np.float16))
    for label, ids in zip(labels, tokenizer.encode(labels), strict=True):
        cells = label.reshape(12, -1).T.astype(np.float64)
        similar = cells @ tokenizer.tensors["centroids"].T.astype(np.float64)
        chosen = np.take_along_axis(similar, ids[:, None].astype(np.int64), axis=1)[:, 0]
        assert (chosen >= similar.max(axis=1) - 1e-5 * np.linalg.norm(cells, axis=1)).all()
        np.testing.assert_array_equal(ids, tokenizer.encode([label])[0])
    assert tokenizer.kind == kind


CODEBOOK = fitted(Codebook(FeatureMap(12, 4, 5), CodebookParams(size=40)), feature_maps())


def test_labels_outside_the_contract_are_refused():
    broken = feature_maps(1)[0].copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        CODEBOOK.encode([broken])
    with pytest.raises(ValueError, match="shape"):
        CODEBOOK.encode([np.zeros((12, 5, 5), np.float16)])
    patches = fitted(PatchCodebook(Image(), PatchParams(patch_size=8)), photographs())
    with pytest.raises(ValueError, match=r"\(40, 40\) pixels.*\(48, 48\)"):
        patches.encode(photographs(1, size=40))
    with pytest.raises(ValueError, match="dtype"):
        patches.encode([np.zeros((48, 48, 3), np.uint16)])
    with pytest.raises(ValueError, match="class ids"):
        PatchCodebook(Image(1, "uint8", "classes"))


def test_tokens_outside_the_codebook_are_refused():
    ids = CODEBOOK.encode(feature_maps(1))[0]
    with pytest.raises(ValueError, match="20 tokens, not 19"):
        CODEBOOK.decode([ids[:-1]])
    with pytest.raises(ValueError, match=r"leave the codebook's 0\.\.39"):
        CODEBOOK.decode([np.where(ids == ids[0], 40, ids)])


def test_state_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"made for the kind .*'channels': 12"):
        Codebook.from_files(FeatureMap(16, 4, 5), CODEBOOK.to_files())
    with pytest.raises(ValueError, match="made for the tokenizer Codebook"):
        ProductCodebook.from_files(Vector(12), CODEBOOK.to_files())
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        Codebook.from_files(CODEBOOK.kind, {"config.json": CODEBOOK.to_files()["config.json"]})


@pytest.mark.parametrize(
    "tokenizer", [Codebook(FeatureMap(2, 1, 1)), ProductCodebook(Vector(3)), PatchCodebook(Image())]
)
def test_nothing_to_fit_to(tokenizer):
    assert tokenizer.needs_fit
    for action in (lambda: tokenizer.spec, tokenizer.to_files, lambda: tokenizer.encode([])):
        with pytest.raises(RuntimeError, match="isn't fitted"):
            action()
    with pytest.raises(ValueError, match="can't be fitted"):
        tokenizer.fit([], seed=0)
    assert tokenizer.needs_fit


def test_zero_vectors():
    labels = [*feature_maps(), np.zeros((12, 4, 5), np.float16)]
    tokenizer = fitted(Codebook(FeatureMap(12, 4, 5), CodebookParams(size=40)), labels)
    assert len(tokenizer.encode([labels[-1]])[0]) == 20
    with pytest.raises(ValueError, match="other than zero"):
        fitted(Codebook(FeatureMap(12, 4, 5)), labels[-1:])
