"""What the network promises whatever its weights: masks, selection, order, and samples that don't know each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.training.data.masking import IGNORED, NOTHING
from tokenloom.training.model.blocks import Cache
from tokenloom.training.model.config import ModalityConfig, ModelConfig
from tokenloom.training.model.fourm import FourM
from tokenloom.training.model.losses import loss_weights
from tokenloom.training.model.start import initialise
from tokenloom.training.model.tokens import Sides, Tokens
from torch.nn import functional

DEPTH = ModalityConfig("depth", "grid", 6, 8, grid=(2, 3))
GLOBAL = ModalityConfig("global", "grid", 1, 5)
CAPTION = ModalityConfig("caption", "text", 12, 20)
PIXELS = ModalityConfig("pixels", "pixels", 4, grid=(2, 2), is_target=False)
VECTORS = ModalityConfig("vectors", "embeddings", 6, width=10, is_target=False)
EDGES = ModalityConfig("edges", "grid", 4, 6, grid=(2, 2), is_input=False)
MODALITIES = (DEPTH, GLOBAL, CAPTION, PIXELS, VECTORS, EDGES)
NAMES = tuple(one.name for one in MODALITIES)


def network(modalities: tuple[ModalityConfig, ...] = MODALITIES, **more) -> Any:
    torch.manual_seed(0)
    config = ModelConfig(modalities, dim=16, encoder_depth=2, decoder_depth=2, num_heads=2, **more)
    model = initialise(FourM(config))
    with torch.no_grad():
        for one in model.parameters():
            one.mul_(3)  # so that what is seen makes a difference
    return model.eval()


def batch(seed: int, rows: int = 3, length: int = 14, empty: tuple[int, ...] = ()) -> dict[str, Any]:
    """Random samples of all modalities, as the loader gives them. empty: rows without any input."""
    rng = np.random.default_rng(seed)
    sides: dict[str, dict[str, np.ndarray]] = {}
    for side in ("inputs", "targets"):
        arrays = {name: np.zeros((rows, length), np.int32) for name in ("position", "ids")}
        arrays["ids"][:], modality = NOTHING, np.full((rows, length), -1, np.int16)
        labels = np.full((rows, length), IGNORED, np.int32)
        for row in range(rows):
            at = 0
            for number, one in enumerate(MODALITIES):
                takes = one.is_input if side == "inputs" else one.is_target
                most = min(one.length, 4, length - at)
                count = int(rng.integers(0, most + 1)) if takes and not (side == "inputs" and row in empty) else 0
                own = slice(at, at + count)
                ordered = one.form in ("text", "embeddings")
                arrays["position"][row, own] = np.arange(count) if ordered else rng.permutation(one.length)[:count]
                if one.form == "text" or (one.form == "grid" and side == "inputs"):
                    arrays["ids"][row, own] = rng.integers(0, one.vocabulary, count)
                elif one.form == "embeddings":
                    arrays["ids"][row, own] = rng.integers(-1, one.length, count)
                if one.form == "text":
                    labels[row, own] = [*arrays["ids"][row, own][1:], IGNORED][:count]
                else:
                    labels[row, own] = rng.integers(0, max(one.vocabulary, 1), count)
                modality[row, own] = number
                at += count
        sides[side] = {**arrays, "modality": modality, "labels": labels}
    arrays = {
        "pixels": rng.integers(0, 256, (rows, 32, 32, 3), np.uint8),
        "vectors": rng.standard_normal((rows, 6, 10)).astype(np.float16),
    }
    tensors = {side: {name: torch.from_numpy(one) for name, one in own.items()} for side, own in sides.items()}
    return {**tensors, "arrays": {name: torch.from_numpy(one) for name, one in arrays.items()}}


def rows_of(given: dict, rows: list[int]) -> dict:
    return {side: {name: one[rows] for name, one in own.items()} for side, own in given.items()}


def said(model: FourM, given: dict, names: tuple[str, ...] = NAMES) -> dict[str, torch.Tensor]:
    """Logits by modality."""
    sides = Sides.of(model.config, given, names)
    encoded = model.encode(sides.inputs, sides.arrays)
    return dict(model.logits(model.decode(sides.targets, model.context(encoded), encoded.used), sides.labels))


def sums(model: FourM, given: dict) -> torch.Tensor:
    return model(Sides.of(model.config, given, NAMES))


@pytest.fixture(scope="module")
def model() -> Any:
    return network()


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_neighbours(model):
    """Nor on the padding; one without any input neither, nor does it spoil the gradients."""
    for own in (model, network(num_register_tokens=2, qk_norm=True)):
        given = batch(1, rows=4, empty=(1,))
        together = sums(own, given)
        alone = sum(sums(own, rows_of(given, [row])) for row in range(4))
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-5)
        wider = batch(1, rows=4, empty=(1,))
        for side in ("inputs", "targets"):
            for name, value in (("ids", -1), ("position", 0), ("modality", -1), ("labels", IGNORED)):
                pad = torch.full((4, 9), value, dtype=wider[side][name].dtype)
                wider[side][name] = torch.cat([pad, wider[side][name]], dim=1)
        torch.testing.assert_close(together, sums(own, wider), atol=1e-4, rtol=1e-5)
    with torch.enable_grad():
        sums(model, given).sum().backward()
    assert all(one.grad.isfinite().all() for one in model.parameters())
    model.zero_grad()


@torch.no_grad()
def test_without_any_input_the_cross_attention_adds_nothing(model):
    given = rows_of(batch(2, empty=(0,)), [0])
    before = said(model, given)
    with torch.no_grad():
        weights = [block.cross_attn.proj.weight.clone() for block in model.decoder]
        for block in model.decoder:
            block.cross_attn.proj.weight.zero_()
        for name, one in said(model, given).items():
            assert torch.equal(one, before[name])
        for block, weight in zip(model.decoder, weights, strict=True):
            block.cross_attn.proj.weight.copy_(weight)


@torch.no_grad()
def test_the_order_of_modalities_and_places_is_of_no_account(model):
    """As they come in a row, in the batch's numbers, and in the model."""
    given = batch(3)
    expected = said(model, given)
    mixed = {side: dict(own) for side, own in given.items()}
    for side in ("inputs", "targets"):
        order = torch.randperm(14, generator=torch.Generator().manual_seed(4))
        mixed[side] = {name: one[:, order] for name, one in given[side].items()}
    places = Sides.of(model.config, given, NAMES).labels, Sides.of(model.config, mixed, NAMES).labels
    back = torch.argsort(order)
    for name, one in said(model, mixed).items():
        number = NAMES.index(name)
        first, second = (own.order.split(own.counts)[number] for own in places)
        moved = first // 14 * 14 + back[first % 14]
        found = torch.stack([torch.nonzero(second == place)[0, 0] for place in moved]) if len(moved) else moved
        torch.testing.assert_close(one[found], expected[name], atol=1e-5, rtol=1e-5)
    other = network(MODALITIES[::-1])
    other.load_state_dict(model.state_dict())
    for name, one in said(other, given).items():
        torch.testing.assert_close(one, expected[name], atol=1e-5, rtol=1e-5)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_a_target_sees_its_own_modality_alone_and_of_a_text_what_is_before(model, seed):
    given = batch(seed)
    mask = Sides.of(model.config, given, NAMES).targets.self_attention_mask[:, 0].numpy()
    modality, position = (given["targets"][name].numpy() for name in ("modality", "position"))
    for row in range(3):
        same = np.equal.outer(modality[row], modality[row])
        before = np.greater_equal.outer(position[row], position[row])
        is_text = (modality[row] == NAMES.index("caption"))[:, None]
        np.testing.assert_array_equal(mask[row], same & (before | ~is_text))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_what_is_selected_is_listed_once_modality_by_modality(model, seed):
    given = batch(seed)
    sides = Sides.of(model.config, given, NAMES)
    for side, raw in ((sides.inputs, given["inputs"]), (sides.targets, given["targets"])):
        flat = raw["modality"].flatten().long()
        assert sorted(side.order.tolist()) == torch.nonzero(flat >= 0).flatten().tolist()
        assert flat[side.order].tolist() == sorted(flat[flat >= 0].tolist())
        assert side.counts == tuple((flat == number).sum() for number in range(len(NAMES)))
        assert {one.device.type for one in (side.to("meta").ids, side.to("meta").order)} == {"meta"}
    wanted = given["targets"]["labels"].flatten()
    assert sides.labels.ids.tolist() == wanted[sides.labels.order].tolist()
    assert (wanted != IGNORED).sum() == len(sides.labels.order) == sum(sides.labels.counts)


def test_what_is_not_there_has_a_gradient_of_zeros(model):
    """So that all ranks have the same parameters to reduce."""
    given = batch(5, empty=(0, 1, 2))
    given["targets"]["labels"][:] = IGNORED
    given["targets"]["modality"][:] = -1
    given["arrays"] = {}
    total = sums(model, given)
    assert total.tolist() == [0.0] * 4
    total.sum().backward()
    lacking = {name for name, one in model.named_parameters() if one.grad is None}
    assert lacking == set()
    assert not any(one.grad.any() for one in model.parameters())
    model.zero_grad()
    for loss_type in ("mod", "token"):
        assert loss_weights(model.config, [0, 0, 0, 0], loss_type) @ total == 0


def test_losses_weigh_modalities_or_tokens():
    config = network().config
    sums_of, counts = torch.tensor([12.0, 0.0, 30.0, 4.0]), [4, 0, 10, 1]
    assert loss_weights(config, counts, "mod") @ sums_of == pytest.approx((3 + 0 + 3 + 4) / 4)
    numel = 4 * 8 + 10 * 20 + 1 * 6
    assert loss_weights(config, counts, "token") @ sums_of == pytest.approx((12 * 8 + 30 * 20 + 4 * 6) / numel)


@torch.no_grad()
@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_cache_gives_what_all_at_once_gives(qk_norm):
    model = network(qk_norm=qk_norm)
    given, number = batch(6), NAMES.index("caption")
    sides = Sides.of(model.config, given, NAMES)
    encoded = model.encode(sides.inputs, sides.arrays)
    context = model.context(encoded)
    ids = torch.randint(0, 20, (3, 8))
    places, modality = torch.arange(8).expand(3, 8), torch.full((3, 8), number)
    expected = model.decode(Tokens.of(model.config, ids, places, modality), context, encoded.used)
    caches = [Cache() for _ in model.decoder]
    for at in range(8):
        new = Tokens.of(model.config, ids[:, [at]], places[:, [at]], modality[:, [at]])
        step = model.decode(new, context, encoded.used, caches)
        torch.testing.assert_close(step[:, 0], expected[:, at], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_half_precision_is_nearly_the_same():
    """And attention is computed in it."""
    model, given = network(qk_norm=True, num_register_tokens=1), batch(8)
    whole, seen = sums(model, given), []
    attention = functional.scaled_dot_product_attention

    def spied(*given: Any) -> torch.Tensor:
        seen.extend(given[:3])
        return attention(*given)

    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(functional, "scaled_dot_product_attention", spied)
        torch.testing.assert_close(sums(model, given), whole, rtol=0.1, atol=0.5)
    assert {one.dtype for one in seen} == {torch.bfloat16}


@torch.no_grad()
def test_positions_past_the_last_are_as_the_first(model):
    """As in ml-4m."""
    ids, modality = torch.zeros(1, 1, dtype=torch.int64), torch.full((1, 1), NAMES.index("caption"))
    made = [model.embed_targets(Tokens.of(model.config, ids, torch.tensor([[at]]), modality))[1] for at in (0, 11, 12)]
    assert torch.equal(made[0], made[2])
    assert not torch.equal(made[0], made[1])


def test_pixels_are_normalised_patches(model):
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    ids, position = torch.full((2, 4), NOTHING), torch.tensor([[3, 0, 1, 2]] * 2)
    inputs = Tokens.of(model.config, ids, position, torch.full((2, 4), NAMES.index("pixels")))
    floats = (pixels / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    expected = model.encoder_embeddings["pixels"].proj.weight.detach() @ floats[1, 16:, :16].flatten()
    made = model.embed_inputs(inputs, {"pixels": pixels})[0]
    torch.testing.assert_close(made[1, 3], expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(model.embed_inputs(inputs, {"pixels": floats})[0], made, atol=1e-5, rtol=1e-5)


def test_what_the_model_lacks_is_named(model):
    given = batch(7)
    without = network(MODALITIES[1:])
    with pytest.raises(ValueError, match="the model has no depth among its inputs, and the batch has"):
        Sides.of(without.config, given, NAMES)
    unseen = network((replace(DEPTH, is_input=False), *MODALITIES[1:]))
    with pytest.raises(ValueError, match="the model has no depth among its inputs"):
        Sides.of(unseen.config, given, NAMES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"is_target": True, "form": "pixels", "vocabulary": 0}, "is_target: pixels are never a target"),
        ({"is_input": False, "is_target": False}, "is_input"),
        ({"length": 0}, "length"),
        ({"vocabulary": 0}, "vocabulary"),
        ({"grid": (2, 2)}, "grid"),
        ({"form": "embeddings", "is_target": False, "grid": None}, "width"),
        ({"form": "pixels", "is_target": False, "grid": None}, "grid"),
    ],
)
def test_a_modality_that_can_not_be_is_refused(change, said):
    with pytest.raises(ValueError, match=f"depth: {said}"):
        replace(DEPTH, **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"modalities": (DEPTH, DEPTH)}, "modalities: depth is there twice"),
        ({"modalities": (replace(DEPTH, name="de.pth"),)}, "modalities: 'de.pth' has a dot in it"),
        ({"num_heads": 5}, "num_heads: 5 don't divide dim 16"),
        ({"dim": 18}, "dim: 18 isn't a multiple of 4"),
    ],
)
def test_a_network_that_can_not_be_is_refused(model, change, said):
    with pytest.raises(ValueError, match=said):
        replace(model.config, **change)


def test_embeddings_begin_as_wide_as_asked_but_for_those_that_give_logits():
    plain, wide = (initialise(seeded(FourM(network().config)), std) for std in (0.02, 1.0))
    for own, other in zip(plain.parameters(), wide.parameters(), strict=True):
        assert torch.equal(own, other) or torch.allclose(50 * own, other)
    text = {"tied": wide, "free": initialise(seeded(FourM(replace(wide.config, share_embedding=False))), 1.0)}
    deviations = {name: deviation(one.target_embedding("caption").token_emb) for name, one in text.items()}
    assert deviations == {"tied": pytest.approx(0.02, rel=0.2), "free": pytest.approx(1.0, rel=0.2)}
    assert deviation(wide.input_embedding("caption").token_emb) == pytest.approx(1.0, rel=0.2)
    assert deviation(text["free"].target_embedding("caption").to_logits) == pytest.approx(0.02, rel=0.2)


def test_it_learns_what_another_modality_has_at_the_same_place():
    grids = tuple(ModalityConfig(name, "grid", 16, 8, grid=(4, 4)) for name in ("seen", "said"))
    model = initialise(seeded(FourM(ModelConfig(grids, 32, 1, 1, 2, share_embedding=False))), embedding_std=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    rng, losses = np.random.default_rng(0), []
    for _ in range(120):
        ids = torch.from_numpy(rng.integers(0, 8, (16, 16)))
        place = torch.arange(16).expand(ids.shape)
        seen = {"ids": ids, "position": place, "modality": 0 * ids, "labels": 0 * ids}
        to_say = {"ids": 0 * ids + NOTHING, "position": place, "modality": 0 * ids + 1, "labels": ids}
        loss = model(Sides.of(model.config, {"inputs": seen, "targets": to_say}, ("seen", "said")))[1] / ids.numel()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[0] > np.log(8) > 4 * np.mean(losses[-10:])


def seeded(model: FourM) -> FourM:
    torch.manual_seed(0)
    return model


def deviation(layer: Any) -> float:
    return float(layer.weight.detach().std())
