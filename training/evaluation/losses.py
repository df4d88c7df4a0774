"""How likely a model holds what is true: nats and hits of the tokens that are to be said."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional

from ..model.fourm import FourM
from ..model.tokens import Labels, Sides, Tokens

_ROWS = 2048
"""Tokens whose logits are in memory together."""


@dataclass(frozen=True)
class Told:
    """Of n samples, float64 (n,) each: how many tokens are said, their nats (negative logarithms of the probabilities
    of what is true), and how many of them are the likeliest."""

    tokens: np.ndarray
    nats: np.ndarray
    hits: np.ndarray


@torch.inference_mode()
def told(model: FourM, inputs: Tokens, sides: Sides, name: str) -> Told:
    """inputs: what is seen. sides: what is to be said, of the modality `name` alone."""
    device = model.mask_token.device
    samples, width = sides.targets.ids.shape
    sides, inputs = sides.to(device), inputs.to(device)
    encoded = model.encode(inputs, sides.arrays)
    decoded = model.decode(sides.targets, model.context(encoded), encoded.used).flatten(0, 1)
    sums = torch.zeros(3, samples, dtype=torch.float64)
    for places, ids in zip(sides.labels.order.split(_ROWS), sides.labels.ids.split(_ROWS), strict=True):
        logits = model.target_embedding(name).to_logits(decoded[places]).float()
        nats = functional.cross_entropy(logits, ids, reduction="none")
        found = torch.stack([torch.ones_like(nats), nats, (logits.argmax(dim=1) == ids).float()])
        sums.index_add_(1, (places // max(1, width)).cpu(), found.double().cpu())
    return Told(*sums.numpy())


@dataclass(frozen=True)
class Loss:
    """Means over tokens. loss: nats a token. accuracy: the share of tokens that are the likeliest."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class ModalityLoss:
    """Of one modality. samples: of which something is said; tokens: of all of them; vocabulary: ids that there are;
    seen_ids: that occur among these tokens.

    given: with tokens of the other modalities; alone: with the same of its own, and none of the others. gain: by how
    many nats a token the others help; gain_error: the standard error of that over samples, None of a single one.

    unigram: the entropy of these tokens themselves, nats, which is what the best of all models that knows nothing but
    how often each id comes would get, one that was told these very tokens. Of few tokens it is too low, by about
    (seen_ids - 1) / (2 tokens): no real unigram model gets it. unigram_against: what one gets that has counted another
    dataset's tokens, each id half a time more (Krichevsky and Trofimov 1981); None without.
    """

    samples: int
    tokens: int
    vocabulary: int
    seen_ids: int
    given: Loss
    alone: Loss
    gain: float
    gain_error: float | None
    unigram: float
    unigram_against: float | None


@dataclass
class LossSum:
    """Sums over samples of one modality. vocabulary: ids that there are."""

    vocabulary: int
    given: list[Told] = field(default_factory=list)
    alone: list[Told] = field(default_factory=list)
    counts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.vocabulary, np.int64)

    def add(self, given: Told, alone: Told, labels: Labels) -> None:
        self.given.append(given)
        self.alone.append(alone)
        self.counts += counted(labels.ids, self.vocabulary)

    def means(self, against: np.ndarray | None = None) -> ModalityLoss | None:
        """against: int64 (vocabulary,), counts of another dataset's tokens. None where nothing was said."""
        given, alone = _whole(self.given), _whole(self.alone)
        said = given.tokens > 0
        if not said.any():
            return None
        gain, gain_error = ratio(alone.nats[said] - given.nats[said], given.tokens[said])
        return ModalityLoss(
            samples=int(said.sum()),
            tokens=int(given.tokens.sum()),
            vocabulary=self.vocabulary,
            seen_ids=int((self.counts > 0).sum()),
            given=_mean(given),
            alone=_mean(alone),
            gain=gain,
            gain_error=gain_error,
            unigram=entropy(self.counts),
            unigram_against=None if against is None else cross_entropy(self.counts, against),
        )


def counted(ids: torch.Tensor, vocabulary: int) -> np.ndarray:
    """int64 (vocabulary,): how often each id comes."""
    return np.bincount(ids.cpu().numpy(), minlength=vocabulary)


def entropy(counts: np.ndarray) -> float:
    """Nats a token of the distribution that these counts are."""
    shares = counts[counts > 0] / counts.sum()
    return float((shares * -np.log(shares)).sum())


def cross_entropy(counts: np.ndarray, against: np.ndarray) -> float:
    """Nats a token that a model gets which has counted other tokens, each id half a time more. Both (vocabulary,)."""
    shares = (against + 0.5) / (against + 0.5).sum()
    return float((counts * -np.log(shares)).sum() / counts.sum())


def ratio(sums: np.ndarray, tokens: np.ndarray) -> tuple[float, float | None]:
    """Of n samples the sums by the tokens, and the standard error of that, since samples are drawn, not tokens (Cochran
    1977, ratio estimates); None of a single sample. Both float64 (n,)."""
    mean = float(sums.sum() / tokens.sum())
    if len(sums) < 2:
        return mean, None
    spread = float(np.sum((sums - mean * tokens) ** 2)) * len(sums) / (len(sums) - 1)
    return mean, math.sqrt(spread) / float(tokens.sum())


def _whole(parts: list[Told]) -> Told:
    empty = np.zeros(0)
    return Told(
        *(np.concatenate([empty, *(getattr(one, name) for one in parts)]) for name in ("tokens", "nats", "hits"))
    )


def _mean(one: Told) -> Loss:
    return Loss(float(one.nats.sum() / one.tokens.sum()), float(one.hits.sum() / one.tokens.sum()))
