"""What holds of generation with any network: here one with drawn weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenloom.training.data.masking import NOTHING
from tokenloom.training.generation.chain import Target, compose, generate
from tokenloom.training.generation.draws import SeededDraws
from tokenloom.training.generation.passes import Guidance, Passes, words
from tokenloom.training.generation.sampling import drawn, guided, kept, probabilities
from tokenloom.training.generation.schedules import temperatures, token_counts
from tokenloom.training.generation.state import Known, State, TextIds
from tokenloom.training.model.config import ModalityConfig, ModelConfig
from tokenloom.training.model.fourm import FourM
from tokenloom.training.model.start import initialise
from tokenloom.training.model.tokens import Tokens

TEXT = TextIds(range(4, 24))
GRID, CAPTION = 16, 64
"""Places of the images, ids of the texts."""


@pytest.fixture(scope="module")
def model() -> FourM:
    modalities = (
        ModalityConfig("rgb", "grid", GRID, 32, grid=(4, 4)),
        ModalityConfig("depth", "grid", GRID, 48, grid=(4, 4)),
        ModalityConfig("caption", "text", 32, CAPTION),
        ModalityConfig("t5", "embeddings", 8, width=12, is_target=False),
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = initialise(FourM(ModelConfig(modalities, 32, 2, 2, 4))).eval()
        for name, one in made.named_parameters():
            if "mod_emb" not in name:
                one.data *= 3  # so that what is said hangs on what is seen
    return made


def seen(samples: int) -> State:
    """Images of rgb, and half a caption each."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(32, (samples, GRID), generator=generator)
    captions = [[30 + row, TEXT.sentinels[1], 40 + row, TEXT.sentinels[2]] for row in range(samples)]
    known = {"rgb": Known(ids, torch.ones(samples, GRID, dtype=torch.bool)), "caption": Known.texts(captions)}
    return State(samples, known)


def row_of(state: State, row: int) -> State:
    known = {name: Known(one.ids[row : row + 1], one.used[row : row + 1]) for name, one in state.known.items()}
    return State(1, known)


@pytest.mark.parametrize(
    "target",
    [
        Target("depth", "maskgit", steps=4, top_p=0.9, weight=2.0),
        Target("depth", "roar", steps=3, temperature=0.7),
        Target("caption", most=12, top_k=20),
    ],
    ids=lambda target: f"{target.name}-{target.scheme}",
)
@torch.inference_mode()
def test_a_sample_hangs_on_its_number_not_on_its_neighbours(model, target):
    state = seen(3)
    together = generate(model, state, [target], TEXT, SeededDraws(1, 3), ["rgb"]).known[target.name].rows
    assert len({tuple(row) for row in together}) == 3
    for row in (2, 0):
        alone = generate(model, row_of(state, row), [target], TEXT, SeededDraws(1, 1, [row]), ["rgb"])
        assert alone.known[target.name].rows == [together[row]]
    other = generate(model, state, [target], TEXT, SeededDraws(2, 3), ["rgb"]).known[target.name].rows
    assert other != together


@torch.inference_mode()
def test_the_cache_changes_no_logits(model):
    state, ids = seen(2), [[5, 31, 32, 33], [6, 40, 41, 42]]
    number = model.config.names.index("caption")
    cached = Passes(model, Guidance(state, (state.only(["rgb"]),), (1.5,))).cached()
    with_cache = [cached.logits(words(model, number, [row[at] for row in ids], at), number)[:, 0] for at in range(4)]
    positions = torch.arange(4).expand(2, 4)
    whole = Tokens.of(model.config, torch.tensor(ids), positions, torch.full((2, 4), number))
    plain = Passes(model, Guidance(state, (state.only(["rgb"]),), (1.5,))).logits(whole, number)
    torch.testing.assert_close(torch.stack(with_cache, dim=1), plain, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_what_is_known_stays(model):
    state = seen(2)
    depth = Known.nothing(2, GRID)
    places = torch.zeros(2, GRID, dtype=torch.bool)
    places[0, :5] = places[1, 3] = True
    state = state.having("depth", depth.written(places, torch.full((2, GRID), 7)))
    made = generate(model, state, [Target("depth", "maskgit", steps=3)], TEXT, SeededDraws(0, 2)).known["depth"]
    assert made.used.all()
    assert (made.ids[places] == 7).all()
    texts = generate(model, state, [Target("caption", most=9)], TEXT, SeededDraws(0, 2)).known["caption"].rows
    for row, text in enumerate(texts):
        assert text[0] == 30 + row
        assert 40 + row in text
        assert not set(text) & set(TEXT.sentinels)
    full = state.having("caption", Known.texts([[30, 31], [32]]))
    assert generate(model, full, [Target("caption")], TEXT, SeededDraws(0, 2)).known["caption"].rows == [[30, 31], [32]]


@torch.inference_mode()
def test_a_chain_gives_each_target_those_before_it(model):
    targets = [Target("depth", steps=2), Target("caption", most=6), Target("rgb", "maskgit", steps=2, weight=3.0)]
    state = seen(2).only([])
    made = generate(model, state, targets, TEXT, SeededDraws(0, 2), grow=True)
    assert {name: one.used.any() for name, one in made.known.items()}.keys() == {"depth", "caption", "rgb"}
    alone = generate(model, state, targets[2:], TEXT, SeededDraws(0, 2))
    assert alone.known["rgb"].rows != made.known["rgb"].rows


@torch.inference_mode()
def test_composition_of_nothing_and_wrong_weights(model):
    state, target = seen(2), Target("depth", "maskgit", steps=2)
    plain = generate(model, state, [target], TEXT, SeededDraws(0, 2)).known["depth"].rows
    assert compose(model, state, [], [target], SeededDraws(0, 2)).known["depth"].rows == plain
    guided_once = compose(model, state.only([]), [state], [replace(target, weights=(1.0,))], SeededDraws(0, 2))
    assert guided_once.known["depth"].rows == plain
    with pytest.raises(ValueError, match="0 weights for 1"):
        compose(model, state, [state], [target], SeededDraws(0, 2))
    with pytest.raises(KeyError):
        generate(model, state, [Target("t5")], TEXT, SeededDraws(0, 2))


def test_dropping_conditions(model):
    vectors = State(2, {"t5": Known(torch.arange(3).expand(2, 3), torch.ones(2, 3, dtype=torch.bool))})
    without = vectors.without(model.config, ["t5", "depth"], TEXT).known
    assert without["t5"].rows == [[NOTHING], [NOTHING]]
    assert "depth" not in without
    without = seen(2).without(model.config, ["rgb", "caption"], TEXT).known
    assert without["caption"].rows == [[5], [5]]
    assert not without["rgb"].used.any()


@given(st.integers(0, 300), st.integers(1, 120), st.sampled_from(["linear", "cosine"]))
def test_counts_add_up(tokens, steps, schedule):
    counts = token_counts(tokens, steps, schedule)
    assert sum(counts) == tokens
    assert len(counts) <= steps
    assert all(count > 0 for count in counts)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.floats(0.01, 5))
def test_temperatures_fall(counts, first):
    for schedule in ("linear", "onex:0:1", "onex:0.005:0.5"):
        found = temperatures(counts, first, schedule)
        assert all(0 < one <= first * (1 + 1e-12) for one in found)
        assert list(found) == sorted(found, reverse=True)
    assert set(temperatures(counts, first, "constant")) == {first}
    with pytest.raises(ValueError, match="onex:LEAST:POWER"):
        temperatures(counts, first, "onex:1")


@given(st.integers(0, 2**31), st.sampled_from([0, 1, 3, 0.2, 1.0]), st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_filters_leave_the_likeliest(seed, top_k, top_p):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(4, 9))).float()
    stays = kept(logits, top_k, top_p)
    assert stays.gather(1, logits.argmax(dim=1, keepdim=True)).all()
    least = logits.masked_fill(~stays, torch.inf).amin(dim=1, keepdim=True)
    assert (stays == (logits >= least)).all()
    chances = probabilities(logits, 0.8, top_k, top_p)
    assert ((chances > 0) == stays).all()
    for uniform in (1e-12, 0.5, 1 - 1e-12):
        ids = drawn(chances, torch.full((4,), uniform, dtype=torch.float64))
        assert stays.gather(1, ids[:, None]).all()


def test_draws_follow_the_chances():
    chances = torch.tensor([[0.1, 0.0, 0.6, 0.3]])
    uniform = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    ids = drawn(chances.expand(10_000, -1), uniform)
    assert torch.bincount(ids, minlength=4).tolist() == [1000, 0, 6000, 3000]


def test_guidance():
    base, one, two = torch.eye(3)
    assert torch.equal(guided(base, [], []), base)
    assert torch.equal(guided(base, [one], [1.0]), one)
    torch.testing.assert_close(guided(base, [one, two], [2.0, -1.0]), torch.tensor([0.0, 2.0, -1.0]))
