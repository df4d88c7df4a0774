"""Fitting a dataset's tokenizers, to a sample of the corpus that depends on the corpus alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from ...labelers.caption import Caption
from ...labelers.contract.labeler import Batch
from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.contract.vocabulary import Vocabulary
from ...tokenizers.fitting.settings import FitSettings
from ...tokenizers.vq.base import TrainedTokenizer
from ..corpus.corpus import Corpus, UnitLimits
from ..dataset.cards import ModalityCard
from ..dataset.layout import sample_folder, tokenizer_folder, training_folder, vocabulary_path
from ..dataset.manifest import DatasetError, naming_gone, read_manifest, replace_options
from ..plan.recipe import Recipe
from ..plan.weights import WeightsSource
from ..plan.worklist import Work
from ..storage.store import Store
from .job import FitError, FitJob
from .listener import FitListener
from .ray_train import run_fit
from .sample import SampleFailures, SampleLabels, lacking_vocabulary, new_tokenizer, sample_labels


def vocabulary_for(
    recipe: Recipe, store: Store, cards: Mapping[str, ModalityCard], works: Sequence[Work], sample: str
) -> Vocabulary:
    """The text vocabulary, trained on the texts that were put aside, or, where the recipe makes none, on the sample's
    captions: so that a caption modality that is added later finds the vocabulary that it would have had."""
    wanted = lacking_vocabulary(cards)
    assert wanted is not None
    names = [name for name in wanted.trained_on if name in cards]
    if names:
        return Vocabulary.train(text for name in names for text in sample_labels(store, name, cards[name], sample))
    return Vocabulary.train(_captions(recipe, works))


def _captions(recipe: Recipe, sample: Sequence[Work]) -> Iterator[str]:
    corpus, limits, caption = Corpus(recipe.corpus), UnitLimits(**recipe.units.model_dump()), Caption()
    for work in sample:
        for unit in corpus.read(work.shard, work.start, work.stop, limits):
            fields = [one.fields for one in unit.samples]
            labels = caption.label(Batch([one.key for one in unit.samples], None, [], fields))["caption"]
            yield from (label for label in labels if label is not None)


def provide_tokenizer(
    store: Store,
    modality: str,
    card: ModalityCard,
    seed: int,
    sample: str,
    given: Tokenizer | None = None,
    listener: FitListener | None = None,
    perceptual: WeightsSource | None = None,
    places: Sequence[str] = (),
    failed: SampleFailures | None = None,
) -> ModalityCard:
    """Fits and stores the modality's tokenizer; its card, with spec and files.

    sample: the digest of the sample that was put aside. given: the tokenizer, where there is nothing to fit.
    listener: told of the fit's rounds, or of a network's training. perceptual: as of FitJob. places: of the sample's
    units. failed: what failed of its labels.
    """
    tokenizer, problem, fitted_to = given or new_tokenizer(modality, card), None, list[str]()
    assert card.tokens is not None
    with naming_gone(store.url):
        words = store.read(vocabulary_path(card.tokens.vocabulary.digest)) if card.tokens.vocabulary else None
    if words is not None:
        tokenizer.use_vocabulary(Vocabulary.from_bytes(words))
    if tokenizer.needs_fit or (card.tokens.vocabulary and not card.tokens.vocabulary.given):
        fitted_to = list(places)
    if tokenizer.needs_fit:
        if listener is not None:
            tokenizer.watch_fit(partial(listener.fitting, modality))
        try:
            tokenizer = _fitted(store, modality, card, tokenizer, seed, sample, words, listener, perceptual)
        except FileNotFoundError as error:
            problem = error
        except ValueError as error:
            problem = error if isinstance(error, FitError) else FitError(f"modalities.{modality}.tokenizer: {error}")
            if failed:
                problem = FitError(f"{problem}. {failed}")
            elif problem is not error:
                plural = "" if len(places) == 1 else "s"
                problem = FitError(
                    f"{problem}. Its sample are the labels of {len(places)} unit{plural}: take more of them with "
                    f"`fit: {{units: ...}}`, or give {modality} `keep: labels`, both with {replace_options([modality])}"
                )
    # Another driver that was first may have cleared the sample away, from under us even: then its tokenizer holds.
    if (theirs := fitted_by_another(store, modality, card)) is not None:
        return theirs
    if problem:
        raise problem
    files = tokenizer.to_files()
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    card = replace(card, tokens=replace(card.tokens, spec=tokenizer.spec, files=digests, fitted_to=fitted_to))
    for name, data in files.items():
        path = f"{tokenizer_folder(card.tokenizer_digest)}/{name}"
        if not store.create(path, data):
            raise DatasetError(f"{store.url}/{path}: it is damaged; delete it, and run the recipe again")
    return card


def _fitted(
    store: Store,
    modality: str,
    card: ModalityCard,
    tokenizer: Tokenizer,
    seed: int,
    sample: str,
    words: bytes | None,
    listener: FitListener | None,
    perceptual: WeightsSource | None,
) -> Tokenizer:
    """The tokenizer, fitted to the labels that were put aside. words: the text vocabulary, where it uses one."""
    labels = SampleLabels(store, sample_folder(modality, sample))
    if not isinstance(tokenizer, TrainedTokenizer):
        tokenizer.fit(labels.read(card.label_kind), seed)
        return tokenizer
    assert card.tokens is not None
    job = FitJob(
        tokenizer=card.tokens.tokenizer,
        kind=card.kind,
        params=card.tokens.params,
        settings=FitSettings.model_validate(card.tokens.fit),
        seed=seed,
        labels=labels,
        store=store,
        prefix=training_folder(modality, sample),
        vocabulary=words,
        perceptual=perceptual,
    )
    return type(tokenizer).from_files(card.label_kind, run_fit(job, listener))


def fitted_by_another(store: Store, modality: str, card: ModalityCard) -> ModalityCard | None:
    """The card with the tokenizer that the manifest pins by now, if that was asked to be the same."""
    manifest = read_manifest(store)
    held = manifest.cards_of(modality) if manifest else []
    theirs = next((one for one in held if one.asked == card.asked and one.fitted), None)
    return replace(card, tokens=theirs.tokens) if theirs else None
