"""Tokenizers of a dataset: given, or fitted to a sample put aside for it; stored before the first token is written.

While they are being fitted the labels of the sample lie under fit/MODALITY, in a folder of its own for each sample and
label generation, and what a training needs to go on from where it was under fit/_MODALITY.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...labelers.contract.kinds import Kind
from ...tokenizers.contract.registry import tokenizer_for
from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.contract.vocabulary import Vocabulary
from ...tokenizers.vq.base import TrainedTokenizer
from ..dataset.aside import remove_failed
from ..dataset.cards import ModalityCard, VocabularyCard
from ..dataset.layout import sample_folder, training_folder, vocabulary_path
from ..dataset.ledger import Failure
from ..dataset.shards import read_labels
from ..plan.recipe import validated
from ..plan.steps import StepGraph
from ..plan.worklist import Work
from ..storage.store import Store
from .checkpoints import remove_fit


def new_tokenizer(modality: str, card: ModalityCard) -> Tokenizer:
    """The tokenizer that the card names, not yet fitted."""
    assert card.tokens is not None
    kind, tokenizer_class = card.label_kind, tokenizer_for(card.tokens.tokenizer, card.label_kind)
    params = validated(tokenizer_class.Params, card.tokens.params, f"modalities.{modality}.tokenizer")
    return tokenizer_class(kind, params)


def given_tokenizer(modality: str, card: ModalityCard, folder: str) -> Tokenizer:
    """The trained tokenizer in a local folder, for the modality. ValueError where it is made for other labels."""
    assert card.tokens is not None
    assert card.tokens.weights is not None
    unfitted = new_tokenizer(modality, card)
    assert isinstance(unfitted, TrainedTokenizer)
    return unfitted.from_weights(card.label_kind, unfitted.params, Path(folder), card.tokens.weights.source)


def to_put_aside(cards: Mapping[str, ModalityCard]) -> list[str]:
    """The modalities whose labels have to be put aside for fitting; texts too where a vocabulary is to be trained."""
    waiting = _waiting(cards)
    aside = [name for name, tokenizer in waiting.items() if tokenizer.needs_fit and not _is_given(cards[name])]
    wanted = lacking_vocabulary(cards)
    texts = [name for name in wanted.trained_on if name in cards] if wanted else []
    return aside + [name for name in texts if name not in aside]


def lacking_vocabulary(cards: Mapping[str, ModalityCard]) -> VocabularyCard | None:
    """The text vocabulary that a tokenizer wants that is to be made, unless the dataset has it."""
    wanted = [card.tokens.vocabulary for card in cards.values() if card.tokens and not card.fitted]
    return next((one for one in wanted if one and not one.digest), None)


def with_vocabulary(card: ModalityCard, digest: str) -> ModalityCard:
    """The card, with the vocabulary of that digest where its tokenizer wants one that wasn't there."""
    tokens = card.tokens
    if tokens is None or tokens.vocabulary is None or tokens.vocabulary.digest:
        return card
    return replace(card, tokens=replace(tokens, vocabulary=replace(tokens.vocabulary, digest=digest)))


def store_vocabulary(store: Store, vocabulary: Vocabulary) -> str:
    """Its digest, by which it is found again."""
    data = vocabulary.to_bytes()
    digest = hashlib.sha256(data).hexdigest()
    store.create(vocabulary_path(digest), data)
    return digest


def _waiting(cards: Mapping[str, ModalityCard]) -> dict[str, Tokenizer]:
    """The tokenizers that the dataset lacks."""
    return {n: new_tokenizer(n, card) for n, card in cards.items() if not card.fitted}


def _is_given(card: ModalityCard) -> bool:
    return card.tokens is not None and card.tokens.weights is not None


def sample_digest(cards: Mapping[str, ModalityCard], works: Sequence[Work]) -> str:
    """Of the sample: which units of which corpus shards, for which tokenizers. Who asks for others has a sample of his
    own, which nobody else clears away."""
    units = [[work.shard.id, work.start, work.stop] for work in works]
    told = [units, {name: card.asked for name, card in cards.items()}]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def try_again(store: Store, graph: StepGraph, modalities: Sequence[str], sample: str) -> None:
    """Has labels of the sample that failed, and what they were made from, labelled anew, unless the training of a
    tokenizer has begun with them."""
    begun = {name for name in modalities if store.list(training_folder(name, sample))}
    again = graph.made_for(set(modalities) - begun, ()) - begun
    remove_failed(store, {name: graph.cards[name] for name in again})


@dataclass(frozen=True)
class SampleFailures:
    """What failed of a modality's labels in the sample: `failures` of so many `labels`. kept: the dataset's URL, where
    it keeps labels that they may come from, which only a retry makes anew; else empty."""

    labels: int
    failures: Sequence[Failure]
    kept: str = ""

    @property
    def are_all(self) -> bool:
        return 0 < len(self.failures) >= self.labels

    def __str__(self) -> str:
        """In words, with the way out."""
        first = self.failures[0]
        whose = first.key if first.view is None else f"{first.key}, view {first.view}"
        way = "Mend that, and run the recipe again, which tries them again"
        if self.kept:
            way = f"Mend that, have `tokenloom quarantine {self.kept} --retry` try them again, and run the recipe again"
        return (
            f"{len(self.failures):,} of {self.labels:,} labels of the sample failed, the first {whose}: {first.error}: "
            f"{first.reason}. {way}"
        )


def sample_labels(store: Store, modality: str, card: ModalityCard, sample: str) -> Iterator[Any]:
    """The labels that were put aside for a modality, in the order of their units' names."""
    return SampleLabels(store, sample_folder(modality, sample)).read(card.label_kind)


def remove_sample(store: Store, modalities: Sequence[str], sample: str) -> None:
    """Removes what was put aside for fitting, and what trainings on it left."""
    for modality in modalities:
        folder = sample_folder(modality, sample)
        for entry in store.list(folder):
            store.delete(f"{folder}/{entry.name}")
        remove_fit(store, training_folder(modality, sample))


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
