"""WordPiece: texts as pieces of the shared vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...labelers.contract.kinds import Text
from ..contract.grammar import END, Grammar
from .base import VocabularyTokenizer


class WordPiece(VocabularyTokenizer):
    """Texts as WordPiece ids, cut after `max_length`, without [SOS] or [EOS] (ml-4m's loader appends [EOS] itself).

    Loss: `decode` gives the words in lower case, without accents, with normal spacing, up to the cut.
    """

    kinds = (Text,)

    def encode(self, labels: Sequence[str]) -> list[np.ndarray]:
        return [self.vocabulary.encode(label, self.max_length).astype(self.spec.dtype) for label in labels]

    def decode(self, tokens: Sequence[np.ndarray]) -> list[str]:
        return [self.vocabulary.decode(ids) for ids in tokens]

    def grammar(self) -> Grammar:
        """Words, as many as there is room for."""
        yield from self.said_words(END)

    def parse(self, ids: np.ndarray) -> tuple[str, list[str]]:
        """As `decode`, which raises ValueError for an id outside the vocabulary: here that is named, and left out."""
        faults: list[str] = []
        return self._words([int(index) for index in ids], faults), faults
