"""The tokenizers that a dataset holds."""

from __future__ import annotations

import hashlib

from ...tokenizers.contract.registry import tokenizer_for
from ...tokenizers.contract.tokenizer import Tokenizer
from ..storage.store import Store
from .cards import ModalityCard
from .layout import tokenizer_folder
from .manifest import DatasetError, naming_gone


def load_tokenizer(store: Store, modality: str, card: ModalityCard) -> Tokenizer:
    """The dataset's own tokenizer of a modality. DatasetError where its files are missing or changed."""
    assert card.tokens is not None
    folder = tokenizer_folder(card.tokenizer_digest)
    with naming_gone(store.url):
        files = {name: store.read(f"{folder}/{name}") for name in card.tokens.files}
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != card.tokens.files[name]:
            raise DatasetError(f"{store.url}/{folder}/{name}: changed since the tokens were made with it")
    kind = card.label_kind
    return tokenizer_for(card.tokens.tokenizer, kind).from_files(kind, files)
