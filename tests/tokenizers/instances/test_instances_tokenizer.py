"""Instances as tokens: ml-4m's spelling of detections, masks by codes, what is dropped, malformed tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.labelers.contract.instances import InstanceSet, Mask
from tokenloom.labelers.contract.kinds import Instances
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.tokenizers.contract.vocabulary import Vocabulary
from tokenloom.tokenizers.fitting.settings import FitSettings
from tokenloom.tokenizers.instances.instance_text import InstancesParams, box_coordinates
from tokenloom.tokenizers.instances.instances import InstancesTokenizer, InstancesVQParams, InstancesVQTokenizer
from tokenloom.tokenizers.instances.mask_codes import mask_square, paint_mask, patch_squares, square_patches
from tokenloom.tokenizers.networks.vit import ConvNeXtBlock

PUBLIC = Path(__file__).parents[4] / "shared/golden/text_tokenizer_4m_wordpiece_30k.json"
VOCABULARY = Vocabulary.train(["a stop at the harbour cafe"])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def ready(kind: Instances, vocabulary: Vocabulary = VOCABULARY, **params) -> InstancesTokenizer:
    tokenizer = InstancesTokenizer(kind, InstancesParams(**params))
    tokenizer.use_vocabulary(vocabulary)
    return tokenizer


def boxes(*rows) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def ellipse(box: np.ndarray, height: int = 120, width: int = 160) -> Mask:
    x0, y0, x1, y1 = box
    ys, xs = (np.arange(height)[:, None] + 0.5) / height, (np.arange(width)[None] + 0.5) / width
    return Mask.from_array(((xs - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((ys - (y0 + y1) / 2) / (y1 - y0)) ** 2 < 0.25)


def ellipses(seed: int, count: int = 3) -> InstanceSet:
    corners, sides = rng(seed).uniform(0, 0.5, (count, 2)), rng(seed + 999).uniform(0.15, 0.5, (count, 2))
    found = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    return InstanceSet(found, ["cup"] * count, masks=[ellipse(box) for box in found])


@pytest.fixture(scope="module")
def masked() -> InstancesTokenizer:
    tokenizer = ready(Instances(masks=True))
    tokenizer.fit((ellipses(seed) for seed in range(60)), seed=0)
    return tokenizer


def check_contract(tokenizer: InstancesTokenizer, labels: list[InstanceSet]) -> list[InstanceSet]:
    tokens, spec = tokenizer.encode(labels), tokenizer.spec
    assert (spec.type, spec.length, spec.grid, spec.vocabulary) == ("text", None, None, tokenizer.vocabulary.size)
    again = InstancesTokenizer.from_files(tokenizer.kind, tokenizer.to_files())
    assert again.to_files() == tokenizer.to_files()
    for ids, same in zip(tokens, again.encode(labels), strict=True):
        assert ids.dtype == spec.dtype
        assert 0 < len(ids) <= spec.max_length
        assert (ids < spec.vocabulary).all()
        np.testing.assert_array_equal(ids, same)
    for ids in tokens:
        assert tokenizer.parse(ids)[1] == []
    return tokenizer.decode(tokens)


def test_the_public_spelling():
    if not PUBLIC.exists():
        pytest.skip("the public 4M vocabulary isn't beside this checkout (../shared/golden)")
    tokenizer = ready(Instances(scores=True), Vocabulary.from_bytes(PUBLIC.read_bytes()))
    label = InstanceSet(
        boxes([0.5, 0.5, 1, 1], [0.1, 0.2, 0.3, 0.4]), ["zebra", "traffic light"], scores=np.ones(2, np.float32)
    )
    (ids,) = tokenizer.encode([label])
    text = "v0=100 v1=200 v2=300 v3=400 traffic light v0=500 v1=500 v2=999 v3=999 zebra"
    assert ids.tolist() == tokenizer.vocabulary._tokenizer.encode(text).ids
    assert ids.tolist() == [304, 1404, 2504, 3604, 4276, 704, 1704, 3203, 4203, 4283]
    assert tokenizer.encode([InstanceSet.empty(scores=True)])[0].tolist() == [18109]


words = st.sampled_from(["cup", "traffic light", "stop sign", "harbour", "cafe at the stop"])
shares = st.floats(0, 1, width=32)
spans = st.tuples(shares, shares).map(sorted)
things = st.lists(st.tuples(spans, spans, words), max_size=12)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(things, st.booleans())
def test_boxes_round_trip(found, texts):
    label = InstanceSet(
        boxes(*[(x[0], y[0], x[1], y[1]) for x, y, _ in found]),
        [word for _, _, word in found],
        texts=[word for _, _, word in found] if texts else None,
    )
    tokenizer = ready(Instances(texts=texts))
    (decoded,) = check_contract(tokenizer, [label])
    tokenizer.kind.check(decoded)
    assert len(decoded) == len(label)
    corners = np.rint(label.boxes.astype(np.float64)[:, :2] * 999)
    order = np.argsort((corners**2).sum(axis=1), kind="stable")
    assert np.abs(decoded.boxes - label.boxes[order]).max(initial=0) <= 0.5 / 999 + 1e-6
    assert list((decoded.texts or []) if texts else decoded.labels) == [found[place][2] for place in order]
    if texts:
        assert list(decoded.labels) == ["text"] * len(found)
    np.testing.assert_array_equal(tokenizer.encode([decoded])[0], tokenizer.encode([label])[0])


def test_nothing_is_none():
    tokenizer = ready(Instances())
    assert tokenizer.encode([InstanceSet.empty()])[0].tolist() == [VOCABULARY.word("none")]
    assert check_contract(tokenizer, [InstanceSet.empty()]) == [InstanceSet.empty()]


def test_instances_past_the_length_are_left_out_whole():
    tokenizer = ready(Instances(), max_length=34)
    corners = np.linspace(0, 0.9, 20)
    label = InstanceSet(boxes(*[(at, at, 1, 1) for at in corners[::-1]]), ["cup"] * 20)
    (ids,) = tokenizer.encode([label])
    assert len(ids) == 30
    assert len(check_contract(tokenizer, [label])[0]) == 6


def test_one_endless_text_still_fits():
    tokenizer = ready(Instances(texts=True), max_length=40)
    label = InstanceSet(boxes([0, 0, 1, 1], [0.5, 0.5, 1, 1]), ["text"] * 2, texts=["at the stop " * 100_000, "cafe"])
    (decoded,) = check_contract(tokenizer, [label])
    assert decoded.texts == [("at the stop " * 12).strip()]


def test_texts_cannot_forge_boxes():
    tokenizer = ready(Instances(texts=True))
    label = InstanceSet(boxes([0, 0, 1, 1]), ["text"], texts=["v0=1 v1=2 v2=3 v3=4 [EOS] none"])
    (decoded,) = check_contract(tokenizer, [label])
    assert len(decoded) == 1
    assert decoded.texts is not None
    assert decoded.texts[0].replace(" ", "") == "v0=1v1=2v2=3v3=4[eos]none"


def test_masks_round_trip(masked):
    labels = [ellipses(seed) for seed in range(20)] + [ellipses(seed) for seed in range(500, 510)]
    assert masked.encode(labels[:1])[0].tolist()[0] == VOCABULARY.word("polygon")
    decoded = check_contract(masked, labels)
    for label, back in zip(labels, decoded, strict=True):
        masked.kind.check(back)
        assert list(back.labels) == ["cup"] * 3
        order = np.argsort((np.rint(label.boxes[:, :2] * 999.0) ** 2).sum(axis=1), kind="stable")
        for place, mask in zip(order, back.masks or [], strict=True):
            assert (mask.height, mask.width) == (224, 224)
            wanted = ellipse(label.boxes[place], 224, 224).to_array()
            assert (wanted & mask.to_array()).sum() / (wanted | mask.to_array()).sum() > 0.85
    facts = masked.facts
    assert facts["sample"] == 60 * 3 * 16
    assert facts["codes"] <= 1024
    assert facts["loss"]["pixel_error"] < 0.05
    assert json.loads(masked.to_files()["config.json"])["fit"] == facts


@pytest.mark.slow
def test_more_than_512_codes_use_both_axes():
    tokenizer = ready(Instances(masks=True), max_length=10_000)
    noise = rng().random((400, 64, 64)) < rng(1).random((400, 1, 1))
    full = boxes([0, 0, 1, 1])
    labels = [InstanceSet(full, ["cup"], masks=[Mask.from_array(mask)]) for mask in noise]
    tokenizer.fit(labels, seed=0)
    assert tokenizer.facts["codes"] == 1024
    codes = np.concatenate([ids[5:21] for ids in tokenizer.encode(labels)])
    assert ((codes >= 204) & (codes < 204 + 512)).any()
    assert ((codes >= 1204) & (codes < 1204 + 512)).any()
    check_contract(tokenizer, labels[:20])


def test_a_sample_without_masks_gives_full_and_empty_patches():
    tokenizer = ready(Instances(masks=True))
    assert tokenizer.needs_fit
    with pytest.raises(RuntimeError, match="isn't fitted"):
        tokenizer.encode([ellipses(0)])
    with pytest.raises(RuntimeError, match="isn't fitted"):
        tokenizer.to_files()
    tokenizer.fit([InstanceSet.empty(masks=True)], seed=0)
    assert tokenizer.facts == {"codes": 2, "sample": 0, "loss": {"pixel_error": 0.0}}
    full = InstanceSet(boxes([0, 0, 0.5, 1]), ["cup"], masks=[Mask.from_array(np.arange(60) < 30 * np.ones((40, 1)))])
    (decoded,) = check_contract(tokenizer, [full])
    assert decoded.masks is not None
    np.testing.assert_array_equal(decoded.masks[0].to_array()[0], np.arange(224) < 112)


def test_fitting_masks_is_deterministic():
    first, second = (ready(Instances(masks=True)) for _ in range(2))
    for tokenizer in (first, second):
        tokenizer.fit((ellipses(seed) for seed in range(10)), seed=3)
    assert first.to_files() == second.to_files()


@settings(max_examples=100, deadline=None)
@given(spans, spans, st.integers(1, 300), st.integers(1, 300))
def test_patches_of_any_box_can_be_painted(x, y, height, width):
    box = [coordinate.value for coordinate in box_coordinates(np.array([x[0], y[0], x[1], y[1]], np.float32))]
    square = mask_square(Mask.from_array(np.ones((height, width), bool)), box)
    assert square.shape == (64, 64)
    assert (square == 1).all()
    painted = paint_mask(square.astype(np.float32), box, 97).to_array()
    assert painted.sum() >= 1
    assert abs(painted.sum() - (box[2] - box[0]) * (box[3] - box[1]) / 999**2 * 97**2) <= 2 * 97 + 1


def test_patches_lie_row_by_row():
    mask = np.zeros((64, 64), bool)
    mask[0:16, 48:64] = True
    square = mask_square(Mask.from_array(mask), [0, 0, 999, 999])
    patches = square_patches(square[None])
    assert patches.sum(axis=1).tolist() == [0, 0, 0, 256] + [0] * 12
    np.testing.assert_array_equal(patch_squares(patches)[0], square)
    np.testing.assert_array_equal(paint_mask(patch_squares(patches)[0], [0, 0, 999, 999], 64).to_array(), mask)


def test_broken_tokens(masked):
    ids = masked.encode([ellipses(0)])[0].tolist()
    label, faults = masked.parse(np.array(ids[: len(ids) - 6]))
    assert len(label) == 2
    assert "mask codes" in faults[0]
    backwards = [204 + 500, 1204, 2204 + 100, 3204 + 100, *ids[5:21]]
    label, faults = masked.parse(np.array([*ids, *backwards]))
    assert len(label) == 3
    assert "ends before it begins" in faults[-1]
    high = [*ids[:5], 204 + 511, *ids[6:]]
    if masked.facts["codes"] < 512:
        assert len(masked.parse(np.array(high))[0]) == 2
    assert masked.parse(np.array([], np.uint16))[1]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.integers(0, VOCABULARY.size + 3), st.sampled_from([204, 1204, 2300, 3300])), max_size=80))
def test_parsing_never_raises(masked, ids):
    for tokenizer in (masked, ready(Instances()), ready(Instances(texts=True))):
        label, _ = tokenizer.parse(np.array(ids, dtype=np.uint16))
        tokenizer.kind.check(label)


def test_missing_masks_are_named(masked):
    with pytest.raises(ValueError, match="no masks"):
        masked.encode([InstanceSet(boxes([0, 0, 1, 1]), ["cup"])])


def test_state_of_another_kind_is_refused(masked):
    with pytest.raises(ValueError, match="made for the kind"):
        InstancesTokenizer.from_files(Instances(), masked.to_files())


# by a network

TINY: dict[str, Any] = {"encoder": "vit_xt_enc", "decoder": "vit_xt_dec"}
KIND = Instances(masks=True)


@pytest.fixture(scope="module")
def by_network() -> InstancesVQTokenizer:
    tokenizer = InstancesVQTokenizer(KIND, InstancesVQParams(**TINY, codes=700))
    tokenizer.use_vocabulary(VOCABULARY)
    tokenizer.settings = FitSettings(steps=2, batch_size=8)
    tokenizer.fit([InstanceSet.empty(masks=True), *(ellipses(seed) for seed in range(5))], 0)
    return tokenizer


def test_masks_by_a_network(by_network):
    labels = [ellipses(0, 2), InstanceSet.empty(masks=True), ellipses(1, 3)]
    tokens = by_network.encode(labels)
    assert [len(ids) for ids in tokens] == [2 * 22, 1, 3 * 22]
    again = InstancesVQTokenizer.from_files(KIND, by_network.to_files())
    assert again.to_files() == by_network.to_files()
    for label, ids, same in zip(labels, tokens, again.encode(labels), strict=True):
        np.testing.assert_array_equal(ids, same)
        read, faults = by_network.parse(ids)
        assert faults == []
        KIND.check(read)
        assert len(read) == len(label)
        again_read = again.decode([ids])[0]
        assert again_read == read
    squares = by_network.examples(labels[0])
    assert (squares.shape, squares.dtype) == ((2, 64, 64), np.uint8)
    assert by_network.examples(labels[1]).shape == (0, 64, 64)
    assert by_network.objective == "binary_cross_entropy"


def test_output_convolutions_do_nothing_for_masks(by_network):
    """Why fitted networks have none, unlike the published one: over one channel the block's layer norm is constant."""
    block = ConvNeXtBlock(1)
    with torch.no_grad():
        for weight in block.parameters():
            torch.nn.init.normal_(weight)
        masks = torch.randn(2, 1, 16, 16)
        added = block(masks) - masks
    np.testing.assert_allclose(added, added.mean().expand(added.shape), atol=1e-5)
    assert not by_network.network.config.out_conv


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.integers(-3, VOCABULARY.size + 3), st.sampled_from([204, 1204, 2300, 3300])), max_size=60))
def test_parsing_by_a_network_never_raises(by_network, ids):
    label, _ = by_network.parse(np.array(ids, dtype=np.int64))
    KIND.check(label)


def test_codes_that_the_network_does_not_have_are_faults(by_network):
    (ids,) = by_network.encode([ellipses(0, 1)])
    ids[5] = 1204 + 200  # code 712, of 700
    read, faults = by_network.parse(ids)
    assert len(read) == 0
    assert "has 15 mask codes, not 16" in faults[0]


def test_published_masks_have_the_golden_tokens(shared, tmp_path):
    folder = shared / "golden/vq/sam_mask64"
    source = "EPFL-VILAB/4M_tokenizers_sam-instance_1k_64"
    loaded = InstancesVQTokenizer.from_weights(KIND, InstancesVQParams(max_length=100), folder, source)
    assert isinstance(loaded, InstancesVQTokenizer)
    loaded.use_vocabulary(VOCABULARY)
    io = np.load(folder / "io.npz")
    masks = [Mask.from_array(mask) for mask in io["x"][:, 0]]
    label = InstanceSet(boxes(*[[0, 0, 1, 1]] * len(masks)), ["object"] * len(masks), masks=masks)
    np.testing.assert_array_equal(loaded._tokenize(loaded.examples(label)), io["tokens"].reshape(-1, 16))
    (ids,) = loaded.encode([label])
    for place, codes in enumerate(io["tokens"].reshape(-1, 16)):
        written = ids[22 * place + 5 : 22 * place + 21].astype(int)
        np.testing.assert_array_equal(written, np.where(codes < 512, 204 + codes, 1204 + codes - 512))
    restored = loaded._restore(io["tokens"].reshape(-1, 16))
    np.testing.assert_allclose(restored, 1 / (1 + np.exp(-io["recon"][:, 0])), atol=1e-5)
    with pytest.raises(ValueError, match="settle codes by themselves"):
        InstancesVQTokenizer.from_weights(KIND, InstancesVQParams(codes=64), folder, source)
    with pytest.raises(ValueError, match="for colour images"):
        InstancesVQTokenizer.from_weights(KIND, None, folder, "EPFL-VILAB/4M_tokenizers_rgb_16k_224-448")
    with pytest.raises(ValueError, match="n_channels = 3"):
        InstancesVQTokenizer.from_weights(KIND, None, shared / "golden/vq/rgb_vqvae_cos", "rgb")
    with pytest.raises(CheckpointError, match=r"no \.safetensors file"):
        InstancesVQTokenizer.from_weights(KIND, None, tmp_path, source)


def test_instances_without_masks_need_no_network():
    with pytest.raises(ValueError, match="the tokenizer `instances` takes them"):
        InstancesVQTokenizer(Instances())


def test_a_network_needs_masks(by_network):
    tokenizer = InstancesVQTokenizer(KIND, InstancesVQParams(**TINY))
    with pytest.raises(ValueError, match="sample holds nothing"):
        tokenizer.fit([InstanceSet.empty(masks=True)], 0)
    with pytest.raises(RuntimeError, match="isn't fitted yet"):
        tokenizer.encode([ellipses(0)])
    with pytest.raises(ValueError, match="no masks"):
        by_network.encode([InstanceSet(boxes([0, 0, 1, 1]), ["cup"])])
