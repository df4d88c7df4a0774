"""Tokenizers of a dataset: fitted once, to a sample put aside for it, and stored before the first token is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..labelers.kinds import Text
from ..tokenizers.tokenizer import Tokenizer
from ..tokenizers.vocabulary import Vocabulary
from .manifest import DatasetError, ModalityCard, read_manifest
from .shards import read_labels
from .storage import Store
from .tokenizer_choice import tokenizer_for, validated

TOKENIZERS = "tokenizers"
FIT = "fit"
"""Where the labels of the sample lie until the tokenizers are fitted to them."""

_VOCABULARY = f"{TOKENIZERS}/vocabulary.json"


def new_tokenizer(modality: str, card: ModalityCard) -> Tokenizer:
    """The tokenizer that the card names, not yet fitted."""
    assert card.tokens is not None
    kind = card.label_kind
    tokenizer_class = tokenizer_for(card.tokens.tokenizer, kind, f"modalities.{modality}.tokenizer")
    return tokenizer_class(
        kind, validated(tokenizer_class.Params, card.tokens.params, f"modalities.{modality}.tokenizer")
    )


def load_tokenizer(store: Store, modality: str, card: ModalityCard) -> Tokenizer:
    """The dataset's own tokenizer of a modality. DatasetError where its files are missing or changed."""
    assert card.tokens is not None
    files = {name: store.read(f"{TOKENIZERS}/{modality}/{name}") for name in card.tokens.files}
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != card.tokens.files[name]:
            raise DatasetError(
                f"{store.url}/{TOKENIZERS}/{modality}/{name}: changed since the tokens were made with it"
            )
    kind = card.label_kind
    return tokenizer_for(card.tokens.tokenizer, kind, modality).from_files(kind, files)


def to_collect(cards: Mapping[str, ModalityCard], train_vocabulary: bool) -> list[str]:
    """The modalities whose labels have to be put aside for fitting; texts too where a vocabulary is to be trained."""
    waiting = _waiting(cards)
    collect = [name for name, tokenizer in waiting.items() if tokenizer.needs_fit]
    texts = texts_among(cards) if train_vocabulary and _use_vocabulary(waiting) else []
    return collect + [name for name in texts if name not in collect]


def needs_vocabulary(store: Store, cards: Mapping[str, ModalityCard]) -> bool:
    """Whether a tokenizer that is to be made wants the text vocabulary, and the dataset has none."""
    return _use_vocabulary(_waiting(cards)) and not store.exists(_VOCABULARY)


def texts_among(cards: Mapping[str, ModalityCard]) -> list[str]:
    """The modalities that a vocabulary is trained on."""
    return [name for name, card in cards.items() if isinstance(card.label_kind, Text)]


def store_vocabulary(store: Store, vocabulary: Vocabulary) -> None:
    store.create(_VOCABULARY, vocabulary.to_bytes())


def _waiting(cards: Mapping[str, ModalityCard]) -> dict[str, Tokenizer]:
    """The tokenizers that the dataset lacks."""
    return {n: new_tokenizer(n, card) for n, card in cards.items() if card.tokens and card.tokens.spec is None}


def _use_vocabulary(tokenizers: Mapping[str, Tokenizer]) -> bool:
    return any(tokenizer.uses_vocabulary for tokenizer in tokenizers.values())


def provide_tokenizer(store: Store, modality: str, card: ModalityCard, seed: int) -> ModalityCard:
    """Fits and stores the modality's tokenizer unless it is stored already; its card, with spec and files."""
    assert card.tokens is not None
    tokenizer = new_tokenizer(modality, card)
    if tokenizer.uses_vocabulary:
        tokenizer.use_vocabulary(Vocabulary.from_bytes(store.read(_VOCABULARY)))
    problem = None
    if tokenizer.needs_fit:
        try:
            tokenizer.fit(sample_labels(store, modality, card), seed)
        except (ValueError, FileNotFoundError) as error:
            problem = error
    # Another driver that was first may have cleared the sample away, from under us even: then its tokenizer holds.
    if (theirs := _fitted_by_another(store, modality, card)) is not None:
        return theirs
    if problem:
        raise problem
    files = tokenizer.to_files()
    for name, data in files.items():
        store.replace(f"{TOKENIZERS}/{modality}/{name}", data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    return replace(card, tokens=replace(card.tokens, spec=tokenizer.spec, files=digests))


def _fitted_by_another(store: Store, modality: str, card: ModalityCard) -> ModalityCard | None:
    """The card with the tokenizer that dataset.json names by now, if that was made for the same labels."""
    manifest = read_manifest(store)
    theirs = manifest.modalities.get(modality) if manifest else None
    if theirs is None or theirs.fingerprint != card.fingerprint or theirs.tokens is None or theirs.tokens.spec is None:
        return None
    return replace(card, tokens=theirs.tokens)


def sample_labels(store: Store, modality: str, card: ModalityCard) -> Iterator[Any]:
    """The labels that were put aside for a modality, in the order of their units' names."""
    kind = card.label_kind
    for entry in store.list(f"{FIT}/{modality}"):
        for label in read_labels(store.read(f"{FIT}/{modality}/{entry.name}")).labels:
            if label is not None:
                yield kind.decode(label)


def remove_sample(store: Store, modalities: Sequence[str]) -> None:
    for modality in modalities:
        for entry in store.list(f"{FIT}/{modality}"):
            store.delete(f"{FIT}/{modality}/{entry.name}")
