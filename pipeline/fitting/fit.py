"""Fitting a dataset's tokenizers, to a sample of the corpus that depends on the corpus alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from ...labelers.caption import Caption
from ...labelers.contract.labeler import Batch
from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.contract.vocabulary import Vocabulary
from ...tokenizers.fitting.settings import FitSettings
from ...tokenizers.vq.base import TrainedTokenizer
from ..corpus.corpus import Corpus, UnitLimits
from ..dataset.layout import VOCABULARY, sample_folder, tokenizer_folder, training_folder
from ..dataset.manifest import ModalityCard, read_manifest
from ..plan.recipe import Recipe
from ..plan.weights import WeightsSource, localise
from ..plan.worklist import Work
from ..storage.store import Store
from .job import FitJob
from .listener import FitListener
from .ray_train import run_fit
from .sample import SampleLabels, new_tokenizer, sample_labels, texts_among


def vocabulary_for(
    recipe: Recipe, store: Store, cards: Mapping[str, ModalityCard], sample: Sequence[Work]
) -> Vocabulary:
    """The given vocabulary; or one trained on the texts that were put aside, or, where the recipe makes none, on the
    sample's captions: so that a caption modality that is added later finds the vocabulary that it would have had."""
    if recipe.vocabulary:
        return Vocabulary.from_bytes(Path(localise(recipe.vocabulary, recipe.storage_options)).read_bytes())
    names = texts_among(cards)
    if names:
        return Vocabulary.train(text for name in names for text in sample_labels(store, name, cards[name]))
    return Vocabulary.train(_captions(recipe, sample))


def _captions(recipe: Recipe, sample: Sequence[Work]) -> Iterator[str]:
    corpus, limits, caption = Corpus(recipe.corpus), UnitLimits(**recipe.units.model_dump()), Caption()
    for work in sample:
        for unit in islice(corpus.read(work.shard, limits=limits), work.units):
            fields = [one.fields for one in unit.samples]
            labels = caption.label(Batch([one.key for one in unit.samples], None, [], fields))["caption"]
            yield from (label for label in labels if label is not None)


def provide_tokenizer(
    store: Store,
    modality: str,
    card: ModalityCard,
    seed: int,
    given: Tokenizer | None = None,
    listener: FitListener | None = None,
    perceptual: WeightsSource | None = None,
) -> ModalityCard:
    """Fits and stores the modality's tokenizer unless it is stored already; its card, with spec and files.

    given: the tokenizer, where there is nothing to fit. listener: told of a network's training. perceptual: as of
    FitJob.
    """
    tokenizer, problem = given or new_tokenizer(modality, card), None
    if tokenizer.uses_vocabulary:
        tokenizer.use_vocabulary(Vocabulary.from_bytes(store.read(VOCABULARY)))
    if tokenizer.needs_fit:
        try:
            tokenizer = _fitted(store, modality, card, tokenizer, seed, listener, perceptual)
        except (ValueError, FileNotFoundError) as error:
            problem = error
    # Another driver that was first may have cleared the sample away, from under us even: then its tokenizer holds.
    if (theirs := _fitted_by_another(store, modality, card)) is not None:
        return theirs
    if problem:
        raise problem
    assert card.tokens is not None
    files = tokenizer.to_files()
    for name, data in files.items():
        store.replace(f"{tokenizer_folder(modality)}/{name}", data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    return replace(card, tokens=replace(card.tokens, spec=tokenizer.spec, files=digests))


def _fitted(
    store: Store,
    modality: str,
    card: ModalityCard,
    tokenizer: Tokenizer,
    seed: int,
    listener: FitListener | None,
    perceptual: WeightsSource | None,
) -> Tokenizer:
    """The tokenizer, fitted to the labels that were put aside."""
    sample = SampleLabels(store, sample_folder(modality))
    if not isinstance(tokenizer, TrainedTokenizer):
        tokenizer.fit(sample.read(card.label_kind), seed)
        return tokenizer
    assert card.tokens is not None
    job = FitJob(
        tokenizer=card.tokens.tokenizer,
        kind=card.kind,
        params=card.tokens.params,
        settings=FitSettings.model_validate(card.tokens.fit),
        seed=seed,
        labels=sample,
        store=store,
        prefix=training_folder(modality),
        vocabulary=store.read(VOCABULARY) if tokenizer.uses_vocabulary else None,
        perceptual=perceptual,
    )
    return type(tokenizer).from_files(card.label_kind, run_fit(job, listener))


def _fitted_by_another(store: Store, modality: str, card: ModalityCard) -> ModalityCard | None:
    """The card with the tokenizer that dataset.json names by now, if that was made for the same labels."""
    manifest = read_manifest(store)
    theirs = manifest.modalities.get(modality) if manifest else None
    if theirs is None or theirs.fingerprint != card.fingerprint or theirs.tokens is None or theirs.tokens.spec is None:
        return None
    return replace(card, tokens=theirs.tokens)
