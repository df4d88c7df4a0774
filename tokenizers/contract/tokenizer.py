"""The Tokenizer contract: labels of one kind to token ids and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
from pydantic import BaseModel

from ...labelers.contract.kinds import Kind
from ...labelers.contract.labeler import NoParams
from .grammar import Grammar
from .token_spec import TokenSpec
from .vocabulary import Vocabulary

Watch: TypeAlias = Callable[[int, int], None]
"""Told how many rounds of a fit are done, and of how many at most."""


class Tokenizer(ABC):
    """Turns labels of `kind` into token ids and back; carries its own normalisation and, once fitted, its weights.

    A tokenizer that must be fitted says so by `needs_fit`; until then only `fit` may be called. The state is a few
    named files (config.json with model.safetensors, or tokenizer.json), so that a dataset can carry it.
    """

    version: ClassVar[int] = 1
    kinds: ClassVar[tuple[type[Kind], ...]] = ()
    uses_vocabulary: ClassVar[bool] = False
    Params: ClassVar[type[BaseModel]] = NoParams

    def __init__(self, kind: Kind, params: BaseModel | None = None) -> None:
        self.kind = kind
        self.params: Any = params if params is not None else self.Params()

    @property
    def needs_fit(self) -> bool:
        """Whether `fit` must run before `encode`."""
        return False

    def use_vocabulary(self, vocabulary: Vocabulary) -> None:  # noqa: B027 - for tokenizers of text alone
        """Take the dataset's one text vocabulary. Called before anything else when `uses_vocabulary` is set."""

    def use_device(self, device: str) -> None:  # noqa: B027 - for tokenizers with a network alone
        """Where `encode` and `decode` compute, as torch names it."""

    def fit(self, labels: Iterable[Any], seed: int) -> None:  # noqa: B027 - only fitted tokenizers have a fit
        """Fit to `labels`, deterministically in (labels, seed)."""

    def watch_fit(self, watch: Watch) -> None:  # noqa: B027 - only fits in rounds can tell
        """Have `fit` tell of its rounds."""

    @property
    @abstractmethod
    def spec(self) -> TokenSpec:
        """Type, vocabulary and length of the tokens. Known once the tokenizer is fitted."""

    @abstractmethod
    def encode(self, labels: Sequence[Any]) -> list[np.ndarray]:
        """One array of ids (spec.dtype, 1-d) per label. No label is None."""

    @abstractmethod
    def decode(self, tokens: Sequence[np.ndarray]) -> list[Any]:
        """One label per array of ids; the inverse of `encode` up to the tokenizer's stated loss."""

    def grammar(self) -> Grammar | None:
        """Which ids may follow each other in a text that decodes without a fault; None where any do, as in images."""
        return None

    @abstractmethod
    def to_files(self) -> dict[str, bytes]:
        """The fitted state, by file name."""

    @classmethod
    @abstractmethod
    def from_files(cls, kind: Kind, files: Mapping[str, bytes]) -> Tokenizer:
        """The tokenizer that `to_files` wrote down."""
