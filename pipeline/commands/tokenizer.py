"""What the commands of the group `tokenizer` do and print: fit, eval, push."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ...tokenizers.contract.files import CONFIG
from ...tokenizers.fitting.settings import FitSettings
from ...tokenizers.measures.reconstruction import MEASURES
from ..dataset.cards import ModalityCard, TokensCard
from ..dataset.manifest import DatasetError, require_manifest
from ..fitting.open_tokenizer import TokenizerError, vocabulary_of
from ..plan.recipe import Recipe, RecipeError, TokenizerSettings, load_recipe
from ..plan.tokenizer_choice import perceptual_source, tokens_card
from ..storage.store import Store
from .console import plain_console
from .progress import FitProgress

if TYPE_CHECKING:
    from ..fitting.evaluation import Evaluation
    from ..fitting.ray_train import FitJob

_TRAINING = "training"
"""Folder of checkpoints and metrics beside a tokenizer that is being fitted."""

# --- eval -------------------------------------------------------------------------------------------------------------


def evaluate(dataset: str, modality: str, tokenizer: str | None, limit: int | None, as_json: bool) -> None:
    from ..fitting.evaluation import evaluate

    console = plain_console(stderr=True)
    with console.status(f"comparing labels of {modality}") as status:
        found = evaluate(
            dataset, modality, tokenizer, limit, lambda done: status.update(f"comparing labels of {modality}: {done}")
        )
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print_evaluation(plain_console(), found)


def print_evaluation(console: Console, found: Evaluation) -> None:
    """Errors with their units, and the codes that they took."""
    seen = "" if found.held_out else ", to which it was fitted: the dataset has no others"
    console.print(f"{found.modality} by {found.tokenizer}, over {found.labels:,} labels{seen}\n")
    table = Table(box=None, pad_edge=False)
    for heading in ("error", "value", *(["not quantised"] if found.bound else []), "better", "what it is"):
        table.add_column(heading, justify="right" if heading in ("value", "not quantised") else "left")
    for name, value in found.errors.items():
        measure = MEASURES[name]
        bound = [measure.say(found.bound[name]) if name in found.bound else "-"] if found.bound else []
        table.add_row(measure.label, measure.say(value), *bound, measure.better, measure.title)
    console.print(table)
    codes = found.codes
    books = f"{codes.codebooks} x {codes.vocabulary:,}" if codes.codebooks > 1 else f"{codes.vocabulary:,}"
    console.print(
        f"\ncodes        {100 * codes.used:.1f} % of {books} used, {codes.unused:,} dead; perplexity "
        f"{codes.perplexity:,.1f}\ntokens       {codes.tokens:,.1f} a label: {codes.bits:,.0f} bits",
    )


# --- fit --------------------------------------------------------------------------------------------------------------


def fit(name: str, modality: str, target: str, overrides: Sequence[str]) -> None:
    from ..cluster.session import stop_ray
    from ..fitting.checkpoints import METRICS, remove_fit
    from ..fitting.ray_train import run_fit

    job = fit_job(load_recipe(name, overrides), modality, target)
    console = plain_console()
    with FitProgress(console) as progress:
        files = run_fit(job, progress)
    stop_ray()
    job.store.replace(METRICS, job.store.read(f"{job.prefix}/{METRICS}"))
    for path in sorted(files, reverse=True):  # config.json, by which a tokenizer is found, comes last
        job.store.replace(path, files[path])
    remove_fit(job.store, job.prefix)
    console.print(f"{job.tokenizer} of {modality} -> {job.store.url}", soft_wrap=True)


def fit_job(recipe: Recipe, modality: str, target: str) -> FitJob:
    """The training of the modality's tokenizer on labels that the recipe's dataset keeps, towards `target`.

    Raises RecipeError, DatasetError where no labels are kept, and TokenizerError where the target holds a tokenizer.
    """
    from ..fitting.ray_train import FitJob
    from ..views.kept_labels import KeptLabels

    if modality not in recipe.modalities:
        raise RecipeError(f"modalities: there is no {modality!r}; the recipe has {', '.join(recipe.modalities)}")
    dataset = Store(recipe.output, recipe.storage_options)
    made = require_manifest(dataset).modalities.get(modality)
    if made is None or not made.keeps_labels:
        raise DatasetError(
            f"{dataset.url}: no labels of {modality} are kept to train on; write `keep: both` for {modality} in the "
            f"recipe and `tokenloom run` it"
        )
    card = _to_train(recipe, modality, made)
    store = Store(target, recipe.storage_options)
    if store.exists(CONFIG):
        raise TokenizerError(f"{store.url}: there is a tokenizer already; choose another place, or remove it")
    return FitJob(
        tokenizer=card.tokenizer,
        kind=made.kind,
        params=card.params,
        settings=FitSettings.model_validate(card.fit),
        seed=recipe.seed,
        labels=KeptLabels(dataset, modality, corpus_options=recipe.corpus.storage_options),
        store=store,
        prefix=_TRAINING,
        vocabulary=vocabulary_of(dataset, made),
        perceptual=perceptual_source(recipe, modality),
    )


def _to_train(recipe: Recipe, modality: str, made: ModalityCard) -> TokensCard:
    """The recipe's tokenizer, as if it said `fit`."""
    settings = recipe.modalities[modality]
    chosen = settings.tokenizer or TokenizerSettings()
    trained = chosen.model_copy(update={"fit": chosen.fit or FitSettings(), "weights": None})
    modalities = {**recipe.modalities, modality: settings.model_copy(update={"tokenizer": trained})}
    card = tokens_card(recipe.model_copy(update={"modalities": modalities}), modality, made.label_kind)
    assert card is not None
    return card


# --- push -------------------------------------------------------------------------------------------------------------
