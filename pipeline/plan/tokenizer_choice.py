"""Which tokenizer a modality gets, with which parameters, trained how or from where."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...labelers.contract.kinds import Kind
from ...labelers.contract.labeler import Weights
from ...labelers.dinov2 import Dinov2
from ...labelers.networks.hub import CheckpointError
from ...tokenizers.contract.registry import tokenizer_for
from ...tokenizers.contract.vocabulary import Vocabulary
from ...tokenizers.fitting.perceptual import PERCEPTUAL, blocks_of
from ...tokenizers.fitting.settings import FitSettings, PerceptualSettings
from ...tokenizers.vq.base import TrainedTokenizer
from ..dataset.cards import ModalityCard, TokensCard, VocabularyCard, WeightsCard
from ..dataset.layout import vocabulary_path
from ..dataset.manifest import naming_gone, read_manifest, vocabulary_digest
from ..storage.errors import without_credentials
from ..storage.store import Store
from .licences import licence_refusal
from .recipe import Recipe, RecipeError, TokenizerSettings, at_key, validated
from .weights import PACKAGE, WeightsError, WeightsSource, localise, told

CAPTIONS = "caption"
"""The modality of the corpus' captions, on which a vocabulary is trained where a recipe makes no texts."""


def tokens_card(recipe: Recipe, name: str, kind: Kind, default: str | None = None) -> TokensCard | None:
    """How the recipe has labels of a modality tokenised; None where nothing does it. Fetches and hashes weights.

    default: the tokenizer that the labeler names. Raises RecipeError naming the key.
    """
    where, chosen = f"modalities.{name}.tokenizer", recipe.modalities[name].tokenizer or TokenizerSettings()
    trained = chosen.fit is not None or chosen.weights is not None
    reference = chosen.name or (kind.trained_tokenizer if trained else default or kind.default_tokenizer)
    if reference is None:
        if trained:
            raise RecipeError(f"{where}: no tokenizer of the kind {kind.name} has a network; leave out fit and weights")
        return None
    with at_key(where):
        tokenizer_class = tokenizer_for(reference, kind)
        params = validated(tokenizer_class.Params, chosen.params, f"{where}.params")
        tokenizer = tokenizer_class(kind, params)
    params_told = params.model_dump(mode="json")
    sample = recipe.fit.units if tokenizer.needs_fit else 0
    card = TokensCard(reference, tokenizer_class.version, params_told, fit_units=sample)
    if not issubclass(tokenizer_class, TrainedTokenizer):
        if trained:
            raise RecipeError(f"{where}: {reference} has no network to be trained; leave out fit and weights")
        return card
    if chosen.weights is None:
        settings = chosen.fit or FitSettings()
        assert isinstance(tokenizer, TrainedTokenizer)
        tokenizer.settings = settings
        with at_key(f"{where}.params"):
            tokenizer.check_params()
        try:
            tokenizer.check_settings()
        except ValueError as error:
            raise RecipeError(f"{where}.fit.{error}") from None
        if settings.perceptual:
            pinned = _pinned(recipe, name, settings.perceptual, f"{where}.fit.perceptual")
            settings = settings.model_copy(update={"perceptual": pinned})
        return replace(card, fit=settings.model_dump(mode="json", exclude_none=True))
    _check_licence(recipe, where, chosen.weights, tokenizer_class.weights)
    with at_key(f"{where}.weights"):
        found = WeightsSource.of(recipe, chosen.weights).resolve()
    source = told(chosen.weights)
    weights = WeightsCard(source, found.sha256, tokenizer_class.weights.licence_of(source))
    return replace(card, params=params.model_dump(mode="json", exclude_unset=True), weights=weights)


def uses_vocabulary(name: str, card: ModalityCard) -> bool:
    """Whether the modality's tokenizer writes with the text vocabulary."""
    if card.tokens is None:
        return False
    with at_key(f"modalities.{name}.tokenizer"):
        return tokenizer_for(card.tokens.tokenizer, card.label_kind).uses_vocabulary


def given_vocabulary(recipe: Recipe) -> Vocabulary | None:
    """That which the recipe names: a file, or that of a dataset. RecipeError for what is neither."""
    if recipe.vocabulary is None:
        return None
    source = WeightsSource.of(recipe, recipe.vocabulary)
    with at_key("vocabulary"):
        data = _vocabulary_of_dataset(source)
        path = _vocabulary_file(source) if data is None else ""
    try:
        return Vocabulary.from_bytes(Path(path).read_bytes() if data is None else data)
    except (ValueError, OSError) as error:
        raise RecipeError(f"vocabulary: {without_credentials(recipe.vocabulary)}: {error}") from None


def _vocabulary_of_dataset(source: WeightsSource) -> bytes | None:
    """The text vocabulary of the dataset that is there; None where there is none. ValueError where it has none."""
    if source.source.startswith(PACKAGE) or source.source.endswith(".json") or Path(source.source).is_file():
        return None
    store = Store(source.source, source.options)
    manifest = read_manifest(store)
    if manifest is None:
        return None
    digest = vocabulary_digest(manifest.modalities)
    if not digest:
        raise ValueError(f"{store.url} has no text vocabulary: none of its modalities that are made uses one")
    with naming_gone(store.url):
        data = store.read(vocabulary_path(digest))
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{store.url}/{vocabulary_path(digest)} is damaged; `tokenloom verify {store.url}` tells more")
    return data


def _vocabulary_file(source: WeightsSource) -> str:
    """The path here of a tokenizer.json that is no dataset's. ValueError where there is none."""
    named, is_url = without_credentials(source.source), "://" in source.source
    if not is_url and not source.source.startswith(PACKAGE) and not Path(source.source).exists():
        raise ValueError(f"{named}: no such file or folder; name a tokenizer.json, or a dataset")
    if Path(source.source).is_dir() or (is_url and not named.endswith(".json")):
        raise ValueError(f"{named}: neither a tokenizer.json nor a dataset")
    try:
        return localise(source.source, source.options)
    except WeightsError as error:
        raise ValueError(str(error).removeprefix("weights ")) from None


def vocabulary_card(recipe: Recipe, texts: Mapping[str, str]) -> VocabularyCard:
    """The text vocabulary that the recipe asks for. texts: label generations of what one would be trained on."""
    given = given_vocabulary(recipe)
    if given is None:
        return VocabularyCard("", False, dict(texts))
    return VocabularyCard(hashlib.sha256(given.to_bytes()).hexdigest(), True)


def _check_licence(recipe: Recipe, where: str, source: str, declared: Weights) -> None:
    refusal = licence_refusal(recipe, where, source, declared, "take other weights")
    if refusal:
        raise RecipeError(refusal)


def perceptual_source(recipe: Recipe, name: str) -> WeightsSource | None:
    """Whence the weights of the perceptual loss with which the recipe has a modality's tokenizer trained."""
    chosen = recipe.modalities[name].tokenizer
    if chosen is None or chosen.fit is None or chosen.fit.perceptual is None:
        return None
    return WeightsSource.of(recipe, recipe.weights or chosen.fit.perceptual.weights)


def _pinned(recipe: Recipe, name: str, wanted: PerceptualSettings, where: str) -> PerceptualSettings:
    """With the weights' hash. Fetches them. RecipeError for those that have no such blocks, or a licence that the
    recipe would have to accept."""
    given = perceptual_source(recipe, name)
    assert given is not None
    source = without_credentials(given.source)
    _check_licence(recipe, where, given.source, PERCEPTUAL)
    with at_key(f"{where}.weights"):
        found = given.resolve(Dinov2)
    if recipe.weights is None and wanted.sha256 not in (None, found.sha256):
        raise RecipeError(f"{where}: the weights {source} have the SHA-256 {found.sha256}, not {wanted.sha256}")
    try:
        blocks_of(wanted, found.path)
    except (ValueError, CheckpointError) as error:
        raise RecipeError(f"{where}: {error}") from None
    return wanted.model_copy(update={"weights": source, "sha256": found.sha256})
