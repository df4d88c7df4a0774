"""Which tokenizer class a name stands for."""

from __future__ import annotations

from ...labelers.contract.kinds import Kind
from ...labelers.plugins.registry import TOKENIZER_GROUP, RegistryError, find
from .tokenizer import Tokenizer


def tokenizer_for(reference: str, kind: Kind) -> type[Tokenizer]:
    """The tokenizer class called `reference`. RegistryError where it doesn't take labels of this kind."""
    tokenizer_class: type[Tokenizer] = find(TOKENIZER_GROUP, reference, Tokenizer)
    if not isinstance(kind, tokenizer_class.kinds):
        takes = ", ".join(taken.name for taken in tokenizer_class.kinds)
        raise RegistryError(f"{reference} takes labels of the kind {takes}, not {kind.name}")
    return tokenizer_class
