"""Training: it learns, it goes on bit by bit the same after a stop, and it says what went wrong."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from functools import cache

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.extra.numpy import arrays
from safetensors.torch import load, save
from tokenloom.tokenizers.fitting.schedule import Batches, average_decay, learning_rate, step_seed
from tokenloom.tokenizers.fitting.settings import FitSettings
from tokenloom.tokenizers.fitting.training import DivergedError, Training, _adamw
from tokenloom.tokenizers.measures.code_usage import UsageWindow, usage_of
from tokenloom.tokenizers.networks.vq_config import VQConfig
from tokenloom.tokenizers.networks.vq_network import build

SETTINGS = FitSettings(steps=20, batch_size=8, learning_rate=2e-3, ema=0.9)

CONFIG = VQConfig(
    image_size=16,
    patch_size=4,
    enc_type="vit_xt_enc",
    dec_type="vit_xt_dec",
    codebook_size=32,
    latent_dim=8,
    kmeans_init=True,
)
CONFIGS = {
    "cosine": CONFIG,
    "euclidean": CONFIG.model_copy(update={"norm_codes": False}),
    "memcodes": CONFIG.model_copy(update={"quant_type": "memcodes", "num_codebooks": 2}),
}


def pictures(count: int = 40) -> np.ndarray:
    """Gradients of colour, uint8 (count, 3, 16, 16)."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 256, (count, 3, 2, 2)).astype(np.float32)
    across = np.linspace(0, 1, 16, dtype=np.float32)
    weights = np.stack([1 - across, across])
    return np.einsum("nchw,hy,wx->ncyx", corners, weights, weights).astype(np.uint8)


def to_batch(examples: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(examples).float() / 127.5 - 1


def training(config: VQConfig = CONFIG, settings: FitSettings = SETTINGS, seed: int = 0, **more) -> Training:
    torch.manual_seed(1)
    return Training(build(config), "mse", pictures(), to_batch, settings, seed, **more)


def advance(one: Training, steps: int) -> list[float]:
    return [one.advance().loss for _ in range(steps)]


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_it_learns(config):
    one = training(config, SETTINGS.model_copy(update={"steps": 60}))
    before = one.finished()
    advance(one, 60)
    after = one.finished()
    batch = to_batch(pictures())

    def error(network) -> float:
        return (network.decode_tokens(network.tokenize(batch)) - batch).square().mean().item()

    assert error(after) < 0.5 * error(before)
    assert not after.training


def test_finished_has_the_average_weights_and_the_codes_as_they_are():
    one = training()
    weights = {n: w for n, w in one.network.named_parameters() if w.requires_grad}
    averages = {name: weight.detach().double() for name, weight in weights.items()}
    for step in range(6):
        one.advance()
        decay = min(SETTINGS.ema, (1 + step) / (10 + step))
        averages = {n: decay * averages[n] + (1 - decay) * w.detach().double() for n, w in weights.items()}
    finished = one.finished()
    for name, weight in finished.named_parameters():
        if name in averages:
            torch.testing.assert_close(weight.double(), averages[name], rtol=1e-5, atol=1e-6)
    buffers = dict(one.network.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in finished.named_buffers())
    assert any(not torch.equal(w, dict(finished.named_parameters())[n]) for n, w in weights.items())


def test_without_an_average_the_last_weights_come_out():
    one = training(settings=SETTINGS.model_copy(update={"ema": 0.0}))
    advance(one, 3)
    assert_same(dict(one.finished().state_dict()), dict(one.network.state_dict()))


def test_figures_and_facts():
    one = training()
    figures = [one.advance() for _ in range(20)][-1]
    assert figures.step == 20
    assert figures.loss == pytest.approx(sum(figures.parts.values()))
    assert 0 < figures.usage <= 1
    assert 1 <= figures.perplexity <= 32
    assert figures.learning_rate == learning_rate(19, 20, 2e-3, SETTINGS.warmup)
    facts = one.facts()
    assert facts["loss"] == pytest.approx(figures.loss)
    assert facts["steps"] == 20
    assert facts["examples"] == 40
    line = json.loads(json.dumps(figures.to_json()))
    assert line["reconstruction_loss"] == figures.parts["reconstruction"]
    assert json.loads(json.dumps(replace(figures, loss=math.nan).to_json(), allow_nan=False))["loss"] is None


def test_only_the_weights_of_layers_decay():
    network = build(CONFIGS["memcodes"])
    names = {id(weight): name for name, weight in network.named_parameters()}
    groups = _adamw(network, SETTINGS).param_groups
    decaying = {names[id(weight)] for weight in groups[0]["params"]}
    others = {names[id(weight)] for weight in groups[1]["params"]}
    assert groups[0]["weight_decay"] == SETTINGS.weight_decay
    assert groups[1]["weight_decay"] == 0
    assert "encoder.blocks.0.mlp.fc1.weight" in decaying
    assert "quant_proj.weight" in decaying
    assert {"encoder.blocks.0.norm1.weight", "encoder.blocks.0.mlp.fc1.bias", "quantize.codes"} <= others
    assert decaying | others == {name for name, weight in network.named_parameters() if weight.requires_grad}


# --- going on after a stop --------------------------------------------------------------------------------------------


@cache
def trained_at_once(config: str) -> tuple[Training, list[float]]:
    """What was trained from first to last, and its losses: for all tests, to be compared with."""
    straight = training(CONFIGS[config])
    return straight, advance(straight, 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("stop", [0, 1, 10])
def test_it_goes_on_bit_by_bit_the_same(name, stop):
    config = CONFIGS[name]
    straight, losses = trained_at_once(name)
    first = training(config)
    begun = advance(first, stop)
    stored = save(first.state())
    torch.manual_seed(12345)  # whatever another process would have there
    second = training(config)
    with torch.no_grad():
        for weight in second.network.parameters():
            weight.add_(1)  # nothing but the state may count
    second.restore(load(stored))
    assert begun + advance(second, 20 - stop) == losses
    assert_same(second.state(), straight.state())
    assert_same(dict(second.finished().state_dict()), dict(straight.finished().state_dict()))
    assert second.facts() == straight.facts()


def test_a_state_shares_no_memory_with_the_training():
    one = training()
    advance(one, 2)
    state = one.state()
    copies = {name: tensor.clone() for name, tensor in state.items()}
    advance(one, 2)
    assert_same(state, copies)


def test_a_state_of_another_network_is_refused():
    other = training(CONFIG.model_copy(update={"codebook_size": 16})).state()
    with pytest.raises(ValueError, match=r"another network.*cluster_size"):
        training().restore(other)


def test_the_seed_decides():
    runs = [training(seed=seed) for seed in (0, 0, 1)]
    losses = [advance(run, 5) for run in runs]
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


# --- what goes wrong --------------------------------------------------------------------------------------------------


class Faulty(Training):
    """Gets NaN instead of pictures at some steps."""

    faults: frozenset[int] = frozenset()

    def _batch(self) -> torch.Tensor:
        batch = super()._batch()
        return batch * math.nan if self.step in self.faults else batch


def faulty(faults: set[int]) -> Faulty:
    torch.manual_seed(1)
    one = Faulty(build(CONFIG), "mse", pictures(), to_batch, SETTINGS, 0)
    one.faults = frozenset(faults)
    return one


@pytest.mark.parametrize("fault", [0, 3])  # at step 0 k-means sees the batch, too
def test_a_step_that_isnt_finite_changes_nothing(fault):
    one = faulty({fault})
    advance(one, fault)
    before = one.state()
    figures = one.advance()
    assert figures.skipped
    after = one.state()
    changed = [n for n in before if not torch.equal(before[n], after[n])]
    assert sorted(changed) == ["counts", "last"]
    assert after["counts"][0] == fault + 1
    assert math.isfinite(advance(one, 1)[0])
    assert one.facts()["skipped"] == 1


def test_training_stops_after_several_steps_in_a_row_that_arent_finite():
    one = faulty({4, 5, 6, 7, 9, 10, 11, 12, 13})
    losses = advance(one, 13)
    assert [math.isfinite(loss) for loss in losses] == [step not in one.faults for step in range(13)]
    with pytest.raises(DivergedError) as error:
        one.advance()
    message = str(error.value)
    assert "stopped at step 14 of 20, after 5 steps in a row" in message
    assert "(mse) is nan" in message
    assert "not finite first in decoder." in message
    assert "learning_rate" in message


def test_a_gradient_that_isnt_finite_is_named():
    one = training()
    weight = dict(one.network.named_parameters())["encoder.blocks.1.mlp.fc2.weight"]
    weight.register_hook(lambda gradient: gradient * math.inf)
    figures = [one.advance() for _ in range(4)]
    assert all(figure.skipped and math.isfinite(figure.loss) for figure in figures)
    with pytest.raises(DivergedError, match=r"not finite first in encoder\.blocks\.1\.mlp\.fc2\.weight and in 1 of"):
        one.advance()


def test_no_examples_are_refused():
    with pytest.raises(ValueError, match="no examples"):
        Training(build(CONFIG), "mse", pictures()[:0], to_batch, SETTINGS, 0)


# --- precision --------------------------------------------------------------------------------------------------------


def test_bfloat16_keeps_the_quantiser_in_float32():
    one = training(settings=SETTINGS.model_copy(update={"precision": "bfloat16"}))
    seen = {}
    one.network.encoder.register_forward_hook(lambda module, given, made: seen.update(encoder=made.dtype))
    one.network.quantize.register_forward_hook(lambda module, given, made: seen.update(codes=made.codes.dtype))
    assert math.isfinite(advance(one, 3)[-1])
    assert seen["codes"] == torch.float32
    assert all(weight.dtype == torch.float32 for weight in one.network.parameters())
    exact = training()
    assert advance(exact, 1) != advance(training(settings=one._settings), 1)


# --- which examples, which rate ---------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 40), st.integers(-5, 5))
def test_every_epoch_has_every_example_once(examples, batch_size, seed):
    batches = Batches(examples, batch_size, seed)
    taken = np.concatenate([batches.at(step) for step in range(-(-3 * examples // batch_size))])
    for epoch in range(3):
        assert sorted(taken[epoch * examples : (epoch + 1) * examples]) == list(range(examples))


@given(st.integers(1, 50), st.integers(1, 5), st.integers(1, 4), st.integers(0, 20))
def test_workers_share_the_batch_of_one(examples, each, world, step):
    whole = Batches(examples, each * world, 7).at(step)
    parts = [Batches(examples, each * world, 7).at(step, rank, world) for rank in range(world)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_a_batch_is_the_same_whatever_was_asked_before():
    asked = Batches(13, 5, 0)
    assert all(np.array_equal(asked.at(step), Batches(13, 5, 0).at(step)) for step in (4, 0, 9, 2, 3))
    assert not np.array_equal(Batches(13, 13, 0).at(0), Batches(13, 13, 0).at(1))


def test_seeds_of_steps_differ():
    seeds = Counter(step_seed(seed, step, rank) for seed in (-1, 0, 1) for step in range(50) for rank in range(3))
    assert set(seeds.values()) == {1}


@given(st.integers(1, 300), st.floats(0, 1))
def test_the_learning_rate_rises_and_falls(steps, warmup):
    rates = [learning_rate(step, steps, 0.5, warmup) for step in range(steps)]
    top = int(np.argmax(rates))
    assert all(0 < rate <= 0.5 for rate in rates)
    assert top <= round(warmup * steps)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_the_learning_rate_at_its_corners():
    rates = [learning_rate(step, 101, 1.0, 0.1) for step in range(101)]
    assert rates[9] == rates[10] == 1.0
    assert rates[0] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.505)
    assert rates[100] == pytest.approx(0.01)


def test_the_average_forgets_the_beginning_soon():
    assert average_decay(0, 0.999) == 0.1
    assert average_decay(10**6, 0.999) == 0.999
    assert average_decay(0, 0.0) == 0


# --- usage ------------------------------------------------------------------------------------------------------------


@given(arrays(np.int64, st.integers(1, 200), elements=st.integers(0, 9)))
def test_usage_is_of_the_latest_tokens(tokens):
    window = UsageWindow(10)
    for part in np.array_split(tokens, 3):
        window.add(part[None])
    latest = tokens[-160:]
    counts = np.bincount(latest, minlength=10)
    usage = window.usage()
    assert usage == usage_of(counts)
    assert usage.share == len(set(latest)) / 10
    shares = counts[counts > 0] / counts.sum()
    assert usage.perplexity == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_usage_over_several_codebooks_is_their_mean():
    usage = usage_of(np.array([[5, 5, 5, 5], [8, 0, 0, 0]]))
    assert usage.share == pytest.approx((1 + 0.25) / 2)
    assert usage.perplexity == pytest.approx((4 + 1) / 2)
    assert usage_of(np.zeros(4)).perplexity == 0


def test_settings_that_cant_be_dealt_out_are_refused():
    with pytest.raises(ValueError, match="batch_size = 10 can't be dealt out evenly to workers = 4"):
        FitSettings(batch_size=10, workers=4)
