"""Documents: whole texts as pieces of the shared vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import BaseModel

from ...labelers.contract.kinds import Text
from ...labelers.contract.labeler import NoParams
from ..contract.grammar import END, Grammar
from .base import VocabularyTokenizer

LONGEST = 16 * 2**20
"""Bytes of the longest text that a corpus may have. No text has more tokens than that."""


class Documents(VocabularyTokenizer):
    """Texts as WordPiece ids, all of them, without [SOS] or [EOS]: the window that a model sees is its loader's choice.

    Loss: `decode` gives the words in lower case, without accents, with normal spacing.
    """

    kinds = (Text,)
    Params: ClassVar[type[BaseModel]] = NoParams

    @property
    def max_length(self) -> int:
        return LONGEST

    def encode(self, labels: Sequence[str]) -> list[np.ndarray]:
        """Raises ValueError for a text of more than LONGEST bytes."""
        for label in labels:
            if len(label) > LONGEST:
                raise ValueError(f"the text has {len(label):,} characters, more than {LONGEST:,}")
        return [ids.astype(self.spec.dtype) for ids in self.vocabulary.encode_all(labels)]

    def decode(self, tokens: Sequence[np.ndarray]) -> list[str]:
        return [self.vocabulary.decode(ids) for ids in tokens]

    def grammar(self) -> Grammar:
        """Words, as many as there is room for."""
        yield from self.said_words(END)

    def parse(self, ids: np.ndarray) -> tuple[str, list[str]]:
        """As `decode`, which raises ValueError for an id outside the vocabulary: here that is named, and left out."""
        faults: list[str] = []
        return self._words([int(index) for index in ids], faults), faults
