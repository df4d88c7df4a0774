"""Quantisers: nearest codes, straight-through gradients, and codebooks that learn, in one process and in two."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenloom.tokenizers.networks import quantizers
from tokenloom.tokenizers.networks.finite_scalar import FiniteScalarQuantizer
from tokenloom.tokenizers.networks.memcodes import Memcodes
from tokenloom.tokenizers.networks.quantizers import EMACodebook, Quantizer, VectorQuantizer
from tokenloom.tokenizers.networks.residual import ResidualQuantizer
from torch import distributed

SEEDS = st.integers(0, 2**31)


def codebook(
    codes: int, dim: int, cosine: bool, dead_ratio: float = 32.0, kmeans: bool = False, decay: float = 0.99
) -> EMACodebook:
    return EMACodebook(codes, dim, cosine, decay, dead_ratio, kmeans)


def vector(cosine: bool = True, codes: int = 16) -> VectorQuantizer:
    return VectorQuantizer(codebook(codes, 6, cosine), commitment=1.0, norm_latents=False)


KINDS: dict[str, Callable[[], Quantizer]] = {
    "cosine": vector,
    "euclidean": lambda: vector(cosine=False),
    "memcodes": lambda: Memcodes(16, 6, heads=3),
    "fsq": lambda: FiniteScalarQuantizer((3, 4, 5, 6, 7, 8)),
    "residual": lambda: ResidualQuantizer([codebook(16, 6, cosine=False) for _ in range(3)], 1.0),
}
CELLS = {"cosine": (), "euclidean": (), "fsq": (), "memcodes": (3,), "residual": (3,)}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


# --- all of them ------------------------------------------------------------------------------------------------------


def test_tokens_have_their_shape_and_decode_to_the_codes(kind: str) -> None:
    torch.manual_seed(0)
    quantizer, latents = KINDS[kind]().eval(), torch.randn(2, 6, 3, 5)
    codes, tokens, _ = quantizer(latents)
    assert tokens.shape == (2, *CELLS[kind], 3, 5)
    assert tokens.dtype == torch.int64
    assert codes.shape == latents.shape
    assert torch.equal(quantizer.tokenize(latents), tokens)
    torch.testing.assert_close(quantizer.embed(tokens), codes)


def test_a_latent_s_tokens_depend_on_it_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    quantizer, latents = KINDS[kind]().eval(), torch.randn(4, 6, 3, 5)
    whole = quantizer.tokenize(latents)
    monkeypatch.setattr(quantizers, "_CPU_SCORES", 100)  # a few latents at a time
    monkeypatch.setattr(quantizers, "_LEAST_ROWS", 4)
    assert torch.equal(quantizer.tokenize(latents), whole)
    assert torch.equal(torch.cat([quantizer.tokenize(one[None]) for one in latents]), whole)


def test_codes_approach_what_is_unquantised() -> None:
    torch.manual_seed(0)
    latents = 0.3 * torch.randn(2, 2, 8, 8)
    for cosine, bound in ((True, torch.nn.functional.normalize(latents, dim=1)), (False, latents)):
        many = VectorQuantizer(codebook(5000, 2, cosine), 1.0, False).eval()
        torch.testing.assert_close(many.unquantized(latents), bound)
        assert (many(latents).codes - bound).abs().median() < 0.05
    fine = FiniteScalarQuantizer((201, 200)).eval()
    torch.testing.assert_close(fine(latents).codes, fine.unquantized(latents), rtol=0, atol=0.011)
    sampled = Memcodes(4, 2, heads=1).train()
    mean = torch.stack([sampled(latents).codes for _ in range(1000)]).mean(0)
    torch.testing.assert_close(sampled.unquantized(latents), mean, rtol=0, atol=0.3)
    books = ResidualQuantizer([codebook(64, 2, cosine=False, kmeans=True) for _ in range(4)], 1.0)
    books.train()(latents)
    torch.testing.assert_close(books.eval()(latents).codes, books.unquantized(latents), rtol=0, atol=0.02)


def test_autocast_changes_nothing(kind: str) -> None:
    torch.manual_seed(0)
    quantizer, latents = KINDS[kind]().eval(), torch.randn(2, 6, 3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        codes, tokens, _ = quantizer(latents)
    assert codes.dtype == torch.float32
    assert torch.equal(tokens, quantizer.tokenize(latents))


def test_tokenising_while_training_learns_nothing(kind: str) -> None:
    torch.manual_seed(0)
    quantizer, latents = KINDS[kind]().train(), torch.randn(2, 6, 3, 5)
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    tokens = quantizer.tokenize(latents)
    assert torch.equal(tokens, quantizer.eval().tokenize(latents))
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("kind", ["cosine", "euclidean", "residual"])
def test_gradients_pass_straight_through(kind: str) -> None:
    torch.manual_seed(0)
    quantizer, latents = KINDS[kind]().train(), torch.randn(2, 6, 3, 5, requires_grad=True)
    weights = torch.randn(2, 6, 3, 5)
    codes, tokens, _ = quantizer(latents)
    assert not torch.allclose(codes, latents)
    (codes * weights).sum().backward()
    torch.testing.assert_close(latents.grad, weights)
    assert tokens.min() >= 0


# --- codebooks --------------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 40), st.integers(2, 50), st.integers(1, 9), st.booleans())
@settings(max_examples=40)
def test_the_nearest_code_is_brute_force_s(seed: int, rows: int, codes: int, dim: int, cosine: bool) -> None:
    torch.manual_seed(seed)
    book, latents = codebook(codes, dim, cosine), torch.randn(rows, dim)
    found = book.nearest(latents).numpy()
    x, embed = latents.double().numpy(), book.embed.double().numpy()
    if cosine:
        x, embed = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in (x, embed))
    distances = np.square(x[:, None] - embed[None]).sum(2)
    best = distances.min(1)
    assert (distances[np.arange(rows), found] <= best + 1e-5 * (1 + best)).all()


def test_of_equal_codes_the_first_is_taken() -> None:
    book = codebook(4, 2, cosine=False)
    book.embed.copy_(torch.tensor([[3.0, 3.0], [1.0, 1.0], [1.0, 1.0], [0.0, 5.0]]))
    assert book.nearest(torch.ones(5, 2)).tolist() == [1] * 5


def test_the_commitment_loss_is_the_squared_error() -> None:
    torch.manual_seed(0)
    latents = torch.randn(2, 6, 3, 5, requires_grad=True)
    codes = vector().eval()(latents).codes
    for norm_latents, near in ((False, latents), (True, latents / latents.norm(dim=1, keepdim=True))):
        torch.manual_seed(0)
        torch.randn(2, 6, 3, 5)
        quantizer = VectorQuantizer(codebook(16, 6, cosine=True), commitment=0.25, norm_latents=norm_latents)
        loss = quantizer.train()(latents).loss
        expected = 0.25 * (near - codes).square().mean()
        torch.testing.assert_close(loss, expected)
        assert torch.autograd.grad(loss, latents)[0].abs().sum() > 0


@pytest.mark.parametrize("cosine", [True, False])
def test_a_step_moves_codes_to_the_mean_of_who_chose_them(cosine: bool) -> None:
    torch.manual_seed(0)
    book = codebook(3, 4, cosine, dead_ratio=1e9, decay=0.8).train()
    book.cluster_size.copy_(torch.tensor([4.0, 5.0, 6.0]))
    book.embed.copy_(torch.tensor([[2.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 0, -9.0]]))
    if not cosine:
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
    before, counts = book.embed.numpy().copy(), np.array([2, 1, 0])
    rows = np.array([[1.0, 0.5, 0, 0], [3, 0, 0.5, 0], [0, 1, 0, 2]], dtype=np.float32)
    codes, tokens = book(torch.from_numpy(rows))
    assert tokens.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(codes.numpy(), before[[0, 0, 1]])
    sizes = 0.8 * np.array([4, 5, 6]) + 0.2 * counts
    np.testing.assert_allclose(book.cluster_size.numpy(), sizes, rtol=1e-6)
    if cosine:
        x = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        goals = np.stack([x[:2].sum(0) / np.linalg.norm(x[:2].sum(0)), x[2], [0, 0, 0, -1]])
        np.testing.assert_allclose(book.embed.numpy(), 0.8 * before + 0.2 * goals, rtol=1e-5, atol=1e-6)
    else:
        sums = np.stack([rows[:2].sum(0), rows[2], np.zeros(4)])
        means = (0.8 * before * np.array([[4], [5], [6]]) + 0.2 * sums) / sizes[:, None]
        np.testing.assert_allclose(book.embed.numpy(), means, rtol=1e-4, atol=1e-5)


def clusters(number: int, dim: int = 8, each: int = 32) -> torch.Tensor:
    """Rows near `number` random points, shuffled."""
    centres = 5 * torch.nn.functional.normalize(torch.randn(number, dim), dim=1)
    rows = centres.repeat_interleave(each, dim=0) + 0.05 * torch.randn(number * each, dim)
    return rows[torch.randperm(len(rows))]


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("kmeans", [True, False])
def test_codebooks_find_clusters_and_use_all_codes(cosine: bool, kmeans: bool) -> None:
    torch.manual_seed(1)
    rows = clusters(12)
    book = codebook(48, 8, cosine, kmeans=kmeans, dead_ratio=8).train()
    for _ in range(300):
        book(rows)
    assert book.initted.item() == 1
    used = book.nearest(rows).bincount(minlength=48)
    assert (used > 0).float().mean() > 0.9
    codes, _ = book.eval()(rows)
    if cosine:
        assert torch.nn.functional.cosine_similarity(codes, rows).min() > 0.99
        torch.testing.assert_close(book.embed.norm(dim=1), torch.ones(48), rtol=0, atol=0.02)
    else:
        assert (codes - rows).square().sum(1).max() < 0.5


@pytest.mark.parametrize("cosine", [True, False])
def test_k_means_starts_at_the_first_training_batch_alone(cosine: bool) -> None:
    torch.manual_seed(0)
    book = codebook(6, 8, cosine, kmeans=True)
    assert not book.embed.any()
    rows = clusters(6)
    book.eval()(rows)
    assert not book.initted.item()
    book.train()(rows)
    started = book.embed.clone()
    codes = book.eval()(rows)[0]
    assert torch.nn.functional.cosine_similarity(codes, rows).mean() > 0.9
    book.train()(rows + 0.01)
    assert (book.embed - started).abs().max() < 0.1


def test_more_codes_than_latents_can_start() -> None:
    torch.manual_seed(0)
    book = codebook(40, 3, cosine=False, kmeans=True).train()
    book(torch.randn(7, 3))
    assert torch.isfinite(book.embed).all()


@pytest.mark.parametrize("cosine", [True, False])
def test_dead_codes_become_latents_of_the_batch_and_others_stay(cosine: bool) -> None:
    torch.manual_seed(0)
    book = codebook(4, 2, cosine, dead_ratio=4, decay=0.5).train()
    book.embed.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0.01], [-1, -0.01]]))
    book.cluster_size.copy_(torch.tensor([8.0, 8, 0.01, 8]))
    if not cosine:
        book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
    rows = torch.tensor([[2.0, 0.2], [0.2, 2]]).repeat(8, 1)
    book(rows)
    candidates = torch.nn.functional.normalize(rows, dim=1) if cosine else rows
    assert (candidates - book.embed[2]).abs().sum(1).min() < 1e-6  # chosen 0.5 % as often as the average
    torch.testing.assert_close(book.embed[3], torch.tensor([-1.0, -0.01]), rtol=1e-3, atol=1e-3)
    after = book.embed[2].clone()
    book(-rows)
    assert (book.embed[2] - after).abs().max() < 1.5  # it has time to be found
    assert book.cluster_size[2] > 0


SETTINGS = [(True, True), (False, False), (False, True)]
"""(cosine, kmeans) of the codebooks that two processes learn."""


def learn_here(rank: int, folder: str) -> None:
    """One of two processes that learn from unequal parts of the batches."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    part = slice(0, 100) if rank == 0 else slice(100, None)
    torch.save([learnt(cosine, kmeans, part, rank).state_dict() for cosine, kmeans in SETTINGS], f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def learnt(cosine: bool, kmeans: bool, part: slice, rank: int = 0) -> EMACodebook:
    """A codebook after six batches, of which this process sees a part. Only rank 0 draws what one process would."""
    generator = torch.Generator().manual_seed(5)
    book = codebook(12, 8, cosine, kmeans=kmeans).train()
    book.embed.copy_(torch.randn(book.embed.shape, generator=generator))
    for step in range(6):
        batch = torch.randn(256, 8, generator=generator) + torch.randn(1, 8, generator=generator)
        torch.manual_seed(1000 * rank + step)
        book(batch[part])
    return book


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_joint_batch(tmp_path: Path) -> None:
    other = get_context("spawn").Process(target=learn_here, args=(1, str(tmp_path)))
    other.start()
    learn_here(0, str(tmp_path))
    other.join()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for (cosine, kmeans), mine, theirs in zip(SETTINGS, first, second, strict=True):
        alone = learnt(cosine, kmeans, slice(None)).state_dict()
        for name, tensor in mine.items():
            assert torch.equal(theirs[name], tensor), name
            torch.testing.assert_close(tensor, alone[name], rtol=1e-4, atol=1e-5)


# --- finite scalars ---------------------------------------------------------------------------------------------------

LEVELS = st.lists(st.integers(3, 9), min_size=1, max_size=4).map(tuple)


@given(LEVELS)
@settings(max_examples=30)
def test_every_index_is_one_code_and_every_code_one_index(levels: tuple[int, ...]) -> None:
    quantizer = FiniteScalarQuantizer(levels)
    tokens = torch.arange(int(np.prod(levels)))[None, None]
    codes = quantizer.embed(tokens)
    assert len(quantizers.rows_of(codes).unique(dim=0)) == tokens.numel()
    half = torch.tensor(levels) // 2
    steps = (codes * half.view(1, -1, 1, 1)).round()
    assert torch.equal(quantizer._index(quantizers.rows_of(steps)), tokens.flatten())
    assert codes.min() >= -1
    assert codes.max() <= 1


@given(LEVELS, st.floats(-1e6, 1e6, width=32))
@settings(max_examples=60)
def test_any_latent_has_a_token_and_all_levels_are_reached(levels: tuple[int, ...], latent: float) -> None:
    quantizer = FiniteScalarQuantizer(levels)
    token = quantizer.tokenize(torch.full((1, len(levels), 1, 1), latent))
    assert 0 <= token.item() < np.prod(levels)
    sweep = torch.linspace(-9, 9, 4000)[:, None].expand(-1, len(levels))
    steps = quantizer.bounded(sweep).round()
    assert [len(column.unique()) for column in steps.T] == list(levels)
    assert (steps.diff(dim=0) >= 0).all()


def test_zero_is_a_level() -> None:
    quantizer = FiniteScalarQuantizer((3, 4, 5, 8))
    torch.testing.assert_close(quantizer.bounded(torch.zeros(1, 4)), torch.zeros(1, 4), rtol=0, atol=1e-6)
    assert not quantizer.eval()(torch.zeros(1, 4, 1, 1)).codes.any()


def test_rounding_lets_the_bound_s_gradient_through() -> None:
    quantizer = FiniteScalarQuantizer((5, 8)).train()
    latents = torch.randn(3, 2, 2, 2, requires_grad=True)
    codes = quantizer(latents).codes
    torch.testing.assert_close(codes, quantizer.eval()(latents).codes)
    gradient = torch.autograd.grad(codes.sum(), latents)[0]
    half = torch.tensor([2, 4]).view(1, 2, 1, 1)
    smooth = quantizers.map_of(quantizer.bounded(quantizers.rows_of(latents)), latents) / half
    torch.testing.assert_close(gradient, torch.autograd.grad(smooth.sum(), latents)[0])


# --- residual ---------------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 4))
@settings(max_examples=20)
def test_a_residual_code_is_the_sum_of_its_codes(seed: int, books: int) -> None:
    torch.manual_seed(seed)
    quantizer = ResidualQuantizer([codebook(8, 5, cosine=False) for _ in range(books)], 1.0)
    tokens = torch.randint(8, (2, books, 3, 2)) if books > 1 else torch.randint(8, (2, 3, 2))
    embeds = np.stack([book.embed.numpy() for book in quantizer.codebooks])
    ids = tokens.view(2, books, 3, 2).numpy()
    expected = sum(embeds[book][ids[:, book]] for book in range(books))
    np.testing.assert_allclose(quantizer.embed(tokens).permute(0, 2, 3, 1).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_each_codebook_takes_what_is_left() -> None:
    torch.manual_seed(0)
    latents = torch.randn(16, 4, 8, 8)
    books = [codebook(32, 4, cosine=False, kmeans=True, decay=0.9) for _ in range(3)]
    quantizer = ResidualQuantizer(books, commitment=0.5).train()
    for _ in range(40):
        loss = quantizer(latents).loss
    errors, rest = [], quantizers.rows_of(latents)
    for book in books:
        rest = rest - book.embed[book.nearest(rest)]
        errors.append(rest.square().mean().item())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert loss.item() == pytest.approx(0.5 * np.mean(errors), rel=0.05)
