"""How much of a vocabulary tokens use: the share of codes that occur, and the perplexity of their distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_TOKENS_PER_CODE = 16
_LARGEST_WINDOW = 2**20


@dataclass(frozen=True)
class Usage:
    """Of one codebook, or the mean over several.

    share: of the codes that occur, in [0, 1]. perplexity: exp of the entropy of the codes' distribution, between 1 and
    the vocabulary; as many equally frequent codes would carry as much.
    """

    share: float
    perplexity: float


def usage_of(counts: np.ndarray) -> Usage:
    """From how often each code occurs: (vocabulary,), or (codebooks, vocabulary) for the mean over codebooks. Zero for
    a codebook of which nothing occurs."""
    counts = np.atleast_2d(counts).astype(np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    perplexities = np.exp(-(shares * logarithms).sum(axis=1)) * counts.any(axis=1)
    return Usage(float((counts > 0).mean()), float(perplexities.mean()))


class UsageWindow:
    """The usage of the latest tokens: of 16 for each code, so that even a rare code would be among them, at most 2^20.

    tokens: int32 (codebooks, window), -1 where there is none yet; the oldest is overwritten first. position: where the
    next one goes.
    """

    def __init__(self, vocabulary: int, codebooks: int = 1) -> None:
        size = min(_TOKENS_PER_CODE * vocabulary, _LARGEST_WINDOW)
        self.tokens = np.full((codebooks, size), -1, np.int32)
        self.position = 0
        self._vocabulary = vocabulary

    def add(self, tokens: np.ndarray) -> None:
        """tokens: (codebooks, count)."""
        size = self.tokens.shape[1]
        new = tokens[:, -size:]
        start = self.position + tokens.shape[1] - new.shape[1]
        self.tokens[:, (start + np.arange(new.shape[1])) % size] = new
        self.position = (self.position + tokens.shape[1]) % size

    def usage(self) -> Usage:
        counts = [np.bincount(row[row >= 0], minlength=self._vocabulary) for row in self.tokens]
        return usage_of(np.stack(counts))
