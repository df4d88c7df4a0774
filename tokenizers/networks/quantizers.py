"""Vector quantisers: latents to the nearest of a set of codes, and how those codes are learnt.

Everything here is computed in float32, whatever autocast says: the nearest code is a matter of small differences.
Randomness comes from torch's default generator on the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import distributed, nn
from torch.nn import functional

_CPU_SCORES, _GPU_SCORES = 2**20, 2**26
"""Scores of latents against codes that are held at a time: as many as a processor's cache takes, 256 MiB on a GPU."""

_LEAST_ROWS = 64
"""Latents that are compared at a time however many codes there are: matrix products need some."""

_FRESH = 4
"""A replaced code starts with this many times the uses below which codes are replaced: time to be found."""

_LLOYD_ITERATIONS = 10


class Quantized(NamedTuple):
    """codes: float32 like the latents, gradients straight through to them in training. tokens: int64 (batch, rows,
    columns) or (batch, tokens per cell, rows, columns). loss: scalar, added to the loss of the reconstruction."""

    codes: torch.Tensor
    tokens: torch.Tensor
    loss: torch.Tensor


class Quantizer(nn.Module, ABC):
    """Latents (batch, dim, rows, columns) to tokens, and tokens to codes of the latents' shape."""

    @abstractmethod
    def tokenize(self, latents: torch.Tensor) -> torch.Tensor:
        """The tokens, deterministically, in training too."""

    @abstractmethod
    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """The codes that the tokens stand for."""

    @abstractmethod
    def unquantized(self, latents: torch.Tensor) -> torch.Tensor:
        """What the codes would be if there were no end of them: float32 like the latents."""

    @abstractmethod
    def forward(self, latents: torch.Tensor) -> Quantized:
        """Tokens, codes and loss; in training mode the codes learn from the latents."""

    @property
    def ema_codebooks(self) -> Sequence[EMACodebook]:
        """Those that it has, each for what those before it leave of the latents."""
        return ()


def in_float32(latents: torch.Tensor) -> torch.autocast:
    """A context without autocast on the latents' device."""
    return torch.autocast(latents.device.type, enabled=False)


def rows_of(latents: torch.Tensor) -> torch.Tensor:
    """(batch, dim, rows, columns) of any float to float32 (batch * rows * columns, dim)."""
    return latents.float().permute(0, 2, 3, 1).flatten(0, 2)


def map_of(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The inverse of `rows_of`; `like` has the batch, rows and columns."""
    batch, _, height, width = like.shape
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)


def rows_at_once(codes: int, device: torch.device) -> int:
    """How many latents are to be compared with that many codes at a time."""
    return max(_LEAST_ROWS, (_CPU_SCORES if device.type == "cpu" else _GPU_SCORES) // codes)


def place_of_best(scores: torch.Tensor) -> torch.Tensor:
    """int64: where each row of the last dimension is largest, first of all; by numpy, which is faster, on CPUs."""
    if scores.device.type == "cpu":
        return torch.from_numpy(scores.numpy().argmax(-1))
    return scores.argmax(-1)


def straight_through(latents: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """The codes' values with the latents' gradient (Bengio et al. 2013)."""
    return latents + (codes - latents).detach()


class VectorQuantizer(Quantizer):
    """One codebook that follows the latents (VQ-VAE, arXiv 1711.00937; cosine as in ViT-VQGAN, arXiv 2110.04627).

    commitment: weight of the loss that pulls latents to their codes. norm_latents: pulls them at unit length.
    """

    def __init__(self, codebook: EMACodebook, commitment: float, norm_latents: bool) -> None:
        super().__init__()
        self._codebook = codebook
        self.commitment = commitment
        self.norm_latents = norm_latents

    @property
    def ema_codebooks(self) -> Sequence[EMACodebook]:
        return (self._codebook,)

    def tokenize(self, latents: torch.Tensor) -> torch.Tensor:
        with in_float32(latents):
            return map_of(self._codebook.nearest(rows_of(latents)), latents).squeeze(1)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return functional.embedding(tokens, self._codebook.embed).permute(0, 3, 1, 2)

    def unquantized(self, latents: torch.Tensor) -> torch.Tensor:
        return functional.normalize(latents.float(), dim=1) if self._codebook.cosine else latents.float()

    def forward(self, latents: torch.Tensor) -> Quantized:
        with in_float32(latents):
            rows = rows_of(latents)
            if self.norm_latents:
                rows = functional.normalize(rows, dim=1)
            codes, tokens = self._codebook(rows)
            loss = self.commitment * functional.mse_loss(rows, codes)
            if self.training:
                codes = straight_through(rows, codes)
            return Quantized(map_of(codes, latents), map_of(tokens, latents).squeeze(1), loss)


class EMACodebook(nn.Module):
    """Codes that are moving averages of the latents which choose them (arXiv 1711.00937, appendix A.1).

    cosine: latents and codes are compared at unit length. decay: of the averages. dead_ratio: a code that is chosen
    this many times more rarely than on average becomes a random latent of the batch. kmeans: the first batch in
    training gives the codes by k-means. With torch.distributed, all processes learn the same codes from the latents of
    all of them: what one process would learn from the joint batch.

    Buffers are named as published: initted (1,), whether there are codes yet; cluster_size (codes,), averages of how
    often each is chosen in a batch; embed (codes, dim); for Euclidean codes embed_avg, averages of the sums.
    """

    initted: torch.Tensor
    cluster_size: torch.Tensor
    embed: torch.Tensor
    embed_avg: torch.Tensor

    def __init__(self, codes: int, dim: int, cosine: bool, decay: float, dead_ratio: float, kmeans: bool) -> None:
        super().__init__()
        self.cosine, self.decay, self.dead_ratio = cosine, decay, dead_ratio
        embed = torch.zeros(codes, dim) if kmeans else nn.init.kaiming_uniform_(torch.empty(codes, dim))
        self.register_buffer("initted", torch.full((1,), float(not kmeans)))
        self.register_buffer("cluster_size", torch.zeros(codes))
        if not cosine:
            self.register_buffer("embed_avg", torch.zeros(codes, dim))
        self.register_buffer("embed", functional.normalize(embed, dim=1) if cosine else embed)

    def nearest(self, rows: torch.Tensor) -> torch.Tensor:
        """int64 (n,): for each of float32 (n, dim) the code, of equally near ones the lowest."""
        return _nearest(rows, self.embed, self.cosine)

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The code of each of float32 (n, dim), and which it is; in training mode, learns from the rows afterwards."""
        samples = rows.detach()
        if self.cosine:
            samples = functional.normalize(samples, dim=1)
        if self.training and not self.initted:
            self.start(*_kmeans(samples, len(self.embed), self.cosine))
        tokens = self.nearest(samples)
        codes = functional.embedding(tokens, self.embed)
        if self.training:
            self._learn(samples, tokens)
        return codes, tokens

    @torch.no_grad()
    def start(self, means: torch.Tensor, counts: torch.Tensor) -> None:
        """Takes codes float32 (codes, dim), and about how often each will be chosen in a batch, (codes,)."""
        self.embed.copy_(means)
        self.cluster_size.copy_(counts)
        if not self.cosine:
            self.embed_avg.copy_(means * counts[:, None])
        self.initted.fill_(1)

    @torch.no_grad()
    def _learn(self, samples: torch.Tensor, tokens: torch.Tensor) -> None:
        counts, sums = _counts_and_sums(samples, tokens, len(self.embed))
        self.cluster_size.lerp_(counts, 1 - self.decay)
        if self.cosine:
            means = functional.normalize(sums, dim=1)
            still = functional.normalize(self.embed, dim=1)
            self.embed.lerp_(torch.where(counts[:, None] > 0, means, still), 1 - self.decay)
        else:
            self.embed_avg.lerp_(sums, 1 - self.decay)
            self.embed.copy_(self.embed_avg / _smoothed(self.cluster_size)[:, None])
        self._replace_dead(samples, least=counts.mean() / self.dead_ratio)

    def _replace_dead(self, samples: torch.Tensor, least: torch.Tensor) -> None:
        dead = self.cluster_size < least
        number = int(dead.sum())
        if not number:
            return
        fresh = _drawn(samples, number)
        self.embed[dead] = fresh
        self.cluster_size[dead] = _FRESH * least
        if not self.cosine:
            self.embed_avg[dead] = _FRESH * least * fresh


@torch.no_grad()
def _nearest(rows: torch.Tensor, embed: torch.Tensor, cosine: bool) -> torch.Tensor:
    """int64 (n,): of the codes (k, dim) the nearest to each of (n, dim), a bounded number of scores at a time."""
    if cosine:
        rows, embed = functional.normalize(rows, dim=1), functional.normalize(embed, dim=1)
    half_squares = None if cosine else embed.square().sum(1) / 2
    tokens = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    step = rows_at_once(len(embed), rows.device)
    for start in range(0, len(rows), step):
        scores = rows[start : start + step] @ embed.T
        if half_squares is not None:
            scores -= half_squares
        tokens[start : start + step] = place_of_best(scores)
    return tokens


def _smoothed(counts: torch.Tensor, epsilon: float = 1e-5) -> torch.Tensor:
    """The counts by Laplace's rule, so that none is zero; their sum stays."""
    total = counts.sum()
    return (counts + epsilon) / (total + len(counts) * epsilon) * total


def _kmeans(samples: torch.Tensor, codes: int, cosine: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Lloyd's algorithm from random samples: means (codes, dim) and how many samples chose each. Samples fewer than
    the codes are drawn again, and their doubles stay unused."""
    means = _drawn(samples, codes)
    counts = samples.new_zeros(codes)
    for _ in range(_LLOYD_ITERATIONS):
        counts, sums = _counts_and_sums(samples, _nearest(samples, means, cosine), codes)
        moved = functional.normalize(sums, dim=1) if cosine else sums / counts.clamp(min=1)[:, None]
        means = torch.where(counts[:, None] > 0, moved, means)
    return means, counts


def _counts_and_sums(samples: torch.Tensor, tokens: torch.Tensor, codes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How many samples (n, dim) chose each code, and their sum: (codes,), (codes, dim), over all processes."""
    counts = torch.bincount(tokens, minlength=codes).to(samples.dtype)
    sums = samples.new_zeros(codes, samples.shape[1]).index_add_(0, tokens, samples)
    if _processes() > 1:
        distributed.all_reduce(counts)
        distributed.all_reduce(sums)
    return counts, sums


def _drawn(samples: torch.Tensor, number: int) -> torch.Tensor:
    """`number` random rows of all processes' samples (n, dim), the same on each; none twice while there are enough.

    The first process draws, by its generator.
    """
    sizes = torch.zeros(_processes(), dtype=torch.int64, device=samples.device)
    rank = distributed.get_rank() if _processes() > 1 else 0
    sizes[rank] = len(samples)
    if _processes() > 1:
        distributed.all_reduce(sizes)
    total, first = int(sizes.sum()), int(sizes[:rank].sum())
    places = torch.randperm(total)[:number] if total >= number else torch.randint(total, (number,))
    places = places.to(samples.device)
    if _processes() == 1:
        return samples[places]
    distributed.broadcast(places, src=0)
    own = (places >= first) & (places < first + len(samples))
    rows = samples.new_zeros(number, samples.shape[1])
    rows[own] = samples[places[own] - first]
    distributed.all_reduce(rows)
    return rows


def _processes() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
