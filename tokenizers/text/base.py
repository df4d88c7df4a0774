"""Tokenizers of text, and of labels that are written as text: words and coordinate tokens of the text vocabulary."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ...labelers.contract.kinds import Kind
from ..contract.files import VOCABULARY_FILE, config_file, read, read_config
from ..contract.grammar import Choice, Part
from ..contract.token_spec import TokenSpec
from ..contract.tokenizer import Tokenizer
from ..contract.vocabulary import Coordinate, Vocabulary

Group: TypeAlias = "list[str | int | Coordinate]"
"""Words, ids of words and coordinates that belong together: a group is written whole or not at all."""


class TextParams(BaseModel):
    """max_length: the most tokens of one sample, without the [EOS] that a trainer appends."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_length: int = Field(256, ge=1)


class VocabularyTokenizer(Tokenizer):
    """What all tokenizers on the text vocabulary share."""

    uses_vocabulary = True
    Params: ClassVar[type[BaseModel]] = TextParams
    _vocabulary: Vocabulary | None = None

    def use_vocabulary(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    @property
    def vocabulary(self) -> Vocabulary:
        """The text vocabulary. Raises RuntimeError before `use_vocabulary`."""
        if self._vocabulary is None:
            raise RuntimeError(f"{type(self).__name__} has no vocabulary yet: call use_vocabulary first")
        return self._vocabulary

    @property
    def max_length(self) -> int:
        """The most tokens that `encode` gives."""
        return self.params.max_length

    @property
    def spec(self) -> TokenSpec:
        return TokenSpec("text", self.vocabulary.size, None, self.max_length)

    @abstractmethod
    def parse(self, ids: np.ndarray) -> tuple[Any, list[str]]:
        """The label that the ids spell, and what is wrong with them: what can't be read is left out, never raised."""

    def to_files(self) -> dict[str, bytes]:
        return {**config_file(self), VOCABULARY_FILE: self.vocabulary.to_bytes()}

    @classmethod
    def from_files(cls, kind: Kind, files: Mapping[str, bytes]) -> VocabularyTokenizer:
        config = read_config(cls, kind, files)
        tokenizer = cls(kind, cls.Params.model_validate(config["params"]))
        tokenizer.use_vocabulary(Vocabulary.from_bytes(read(files, VOCABULARY_FILE)))
        return tokenizer

    def said_words(self, *follow: Choice, least: int = 0) -> Part:
        """Any number of words, but `least` at least (0 or 1), and a token of what follows them."""
        after, ends = min(choice.needs for choice in follow) + 1, np.concatenate([choice.ids for choice in follow])
        first, more = (words[~np.isin(words, ends)] for words in (self.vocabulary.beginnings, self.vocabulary.words))
        token = yield [Choice(first, after), *(() if least else follow)]
        while token not in ends:
            token = yield [Choice(more, after), *follow]
        return token

    def _words(self, ids: Sequence[int | Coordinate], faults: list[str]) -> str:
        """The text of word ids; ids that aren't in the vocabulary are named in `faults` and left out."""
        words = [index for index in ids if isinstance(index, int)]
        known = [index for index in words if 0 <= index < self.vocabulary.size]
        faults += [f"token id {index} isn't in the vocabulary" for index in words if index not in known]
        return self.vocabulary.decode(known)


class StructuredTokenizer(VocabularyTokenizer):
    """Labels written as groups of words and coordinates, as 4M writes boxes, colours and metadata.

    A subclass writes `groups` and `parse`. Groups past `max_length` are left out whole.
    """

    @abstractmethod
    def groups(self, label: Any) -> list[Group]:
        """The label, piece by piece. Raises ValueError for a label that can't be written."""

    def encode(self, labels: Sequence[Any]) -> list[np.ndarray]:
        return [self._write(self.groups(label)) for label in labels]

    def decode(self, tokens: Sequence[np.ndarray]) -> list[Any]:
        return [self.parse(ids)[0] for ids in tokens]

    def _write(self, groups: Iterable[Group]) -> np.ndarray:
        """The ids of the groups that fit into `max_length`."""
        ids: list[int] = []
        for group in groups:
            written = [index for piece in group for index in self._piece_ids(piece)]
            if len(ids) + len(written) > self.max_length:
                break
            ids += written
        return np.array(ids, dtype=self.spec.dtype)

    def _piece_ids(self, piece: str | int | Coordinate) -> Sequence[int]:
        if isinstance(piece, int):
            return (piece,)
        if isinstance(piece, Coordinate):
            return (self.vocabulary.coordinate(*piece),)
        return self.vocabulary.encode(piece, self.max_length).tolist()

    def _read(self, ids: np.ndarray) -> list[int | Coordinate]:
        """The ids with coordinates told apart."""
        return [self.vocabulary.coordinate_of(int(index)) or int(index) for index in ids]
