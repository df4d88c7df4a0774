"""Tokenizers of a dataset: given, or fitted to a sample put aside for it; stored before the first token is written.

While they are being fitted the labels of the sample lie under fit/MODALITY, and what a training needs to go on from
where it was under fit/_MODALITY: no modality's name begins so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...labelers.contract.kinds import Kind, Text
from ...tokenizers.contract.registry import tokenizer_for
from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.contract.vocabulary import Vocabulary
from ...tokenizers.vq.base import TrainedTokenizer
from ..dataset.layout import VOCABULARY, sample_folder, training_folder
from ..dataset.manifest import ModalityCard
from ..dataset.shards import read_labels
from ..plan.recipe import validated
from ..storage.store import Store
from .checkpoints import remove_fit


def new_tokenizer(modality: str, card: ModalityCard) -> Tokenizer:
    """The tokenizer that the card names, not yet fitted."""
    assert card.tokens is not None
    kind, where = card.label_kind, f"modalities.{modality}.tokenizer"
    tokenizer_class = tokenizer_for(card.tokens.tokenizer, kind, where)
    return tokenizer_class(kind, validated(tokenizer_class.Params, card.tokens.params, where))


def given_tokenizer(modality: str, card: ModalityCard, folder: str) -> Tokenizer:
    """The trained tokenizer in a local folder, for the modality. ValueError where it is made for other labels."""
    assert card.tokens is not None
    assert card.tokens.weights is not None
    unfitted = new_tokenizer(modality, card)
    assert isinstance(unfitted, TrainedTokenizer)
    return unfitted.from_weights(card.label_kind, unfitted.params, Path(folder), card.tokens.weights.source)


def to_put_aside(cards: Mapping[str, ModalityCard], train_vocabulary: bool) -> list[str]:
    """The modalities whose labels have to be put aside for fitting; texts too where a vocabulary is to be trained."""
    waiting = _waiting(cards)
    aside = [name for name, tokenizer in waiting.items() if tokenizer.needs_fit and not _is_given(cards[name])]
    texts = texts_among(cards) if train_vocabulary and _use_vocabulary(waiting) else []
    return aside + [name for name in texts if name not in aside]


def needs_vocabulary(store: Store, cards: Mapping[str, ModalityCard]) -> bool:
    """Whether a tokenizer that is to be made wants the text vocabulary, and the dataset has none."""
    return _use_vocabulary(_waiting(cards)) and not store.exists(VOCABULARY)


def texts_among(cards: Mapping[str, ModalityCard]) -> list[str]:
    """The modalities that a vocabulary is trained on."""
    return [name for name, card in cards.items() if isinstance(card.label_kind, Text)]


def store_vocabulary(store: Store, vocabulary: Vocabulary) -> None:
    store.create(VOCABULARY, vocabulary.to_bytes())


def _waiting(cards: Mapping[str, ModalityCard]) -> dict[str, Tokenizer]:
    """The tokenizers that the dataset lacks."""
    return {n: new_tokenizer(n, card) for n, card in cards.items() if card.tokens and card.tokens.spec is None}


def _is_given(card: ModalityCard) -> bool:
    return card.tokens is not None and card.tokens.weights is not None


def _use_vocabulary(tokenizers: Mapping[str, Tokenizer]) -> bool:
    return any(tokenizer.uses_vocabulary for tokenizer in tokenizers.values())


def sample_labels(store: Store, modality: str, card: ModalityCard) -> Iterator[Any]:
    """The labels that were put aside for a modality, in the order of their units' names."""
    return SampleLabels(store, sample_folder(modality)).read(card.label_kind)


def remove_sample(store: Store, modalities: Sequence[str]) -> None:
    """Removes what was put aside for fitting, and what trainings left."""
    for modality in modalities:
        folder = sample_folder(modality)
        for entry in store.list(folder):
            store.delete(f"{folder}/{entry.name}")
        remove_fit(store, training_folder(modality))


@dataclass(frozen=True)
class SampleLabels:
    """The labels that a run put aside below `prefix` of its output, as its views see them."""

    store: Store
    prefix: str

    def read(self, kind: Kind) -> Iterator[Any]:
        """Decoded labels in the order of their units' names, then of the samples."""
        for entry in self.store.list(self.prefix):
            for label in read_labels(self.store.read(f"{self.prefix}/{entry.name}")).labels:
                if label is not None:
                    yield kind.decode(label)
