"""Steps: from a recipe to one labeler each, in an order that satisfies what they need, and a card per modality."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from ...labelers.contract.kinds import Text
from ...labelers.contract.labeler import Labeler, Modality, Resources
from ...labelers.contract.licences import TINY
from ...labelers.networks.hub import CheckpointError
from ...labelers.plugins.registry import LABELER_GROUP, RegistryError, find_labeler, identity_of
from ..dataset.cards import ModalityCard, WeightsCard
from .licences import licence_refusal
from .recipe import ModalitySettings, Recipe, RecipeError, at_key, validated
from .tokenizer_choice import CAPTIONS, tokens_card, uses_vocabulary, vocabulary_card
from .weights import PACKAGE, LocalWeights, WeightsSource, told


@dataclass(frozen=True)
class Step:
    """One labeler with its parameters. `modalities` are those of its outputs that the recipe asks for.

    requires: modalities that a sample must have; wants: those used where they are, of the recipe's. environment: what
    its workers have installed in place of the cluster's, as NAME==VERSION.
    """

    name: str
    labeler: str
    params: dict[str, Any]
    weights: WeightsSource | None
    batch_size: int
    on: str
    modalities: tuple[str, ...]
    requires: tuple[str, ...]
    wants: tuple[str, ...]
    cpus: float
    gpus: float
    memory: int
    environment: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        return self.requires + self.wants


@dataclass(frozen=True)
class StepGraph:
    """What a recipe comes to: steps in an order that satisfies what they need, and a card per modality."""

    steps: tuple[Step, ...]
    cards: dict[str, ModalityCard]

    def step_of(self, modality: str) -> Step:
        return next(step for step in self.steps if modality in step.modalities)

    def downstream(self, modalities: Sequence[str]) -> list[str]:
        """These modalities and all that are made from them, in order."""
        found = set(modalities)
        for step in self.steps:
            if found & set(step.needs):
                found |= set(step.modalities)
        return [name for step in self.steps for name in step.modalities if name in found]

    def made_for(self, wanted: Collection[str], kept: Collection[str]) -> set[str]:
        """The modalities whose labels have to be made for those that are `wanted`: they and what they need, each
        unless its labels are `kept`."""
        making = set(wanted) - set(kept)
        for step in reversed(self.steps):
            if making & set(step.modalities):
                making |= set(step.needs) - set(kept)
        return making


def step_graph(recipe: Recipe) -> StepGraph:
    """Finds every labeler and tokenizer, checks parameters and needs, and hashes weights. Loads no model.

    Raises RecipeError naming the key.
    """
    with recipe.named():
        _check_images(recipe)
        _check_weights(recipe)
        _check_stages(recipe)
        cards: dict[str, ModalityCard] = {}
        steps = []
        for group in _order(_group(recipe)):
            step = group.step(recipe)
            for name in step.modalities:
                cards[name] = _card(recipe, name, group, step, cards)
            steps.append(step)
        _check_environments(recipe, steps)
        return StepGraph(tuple(steps), _with_vocabulary(recipe, cards))


def named_weights(recipe: Recipe) -> dict[str, WeightsSource]:
    """Whence the weights of each modality's labeler come, without fetching any. Raises RecipeError as `step_graph` does
    for what is wrong with labelers and weights."""
    with recipe.named():
        _check_images(recipe)
        _check_weights(recipe)
        _check_stages(recipe)
        named = {
            name: _source_of_weights(recipe, settings, _labeler_of(name, settings))
            for name, settings in recipe.modalities.items()
        }
    return {name: WeightsSource.of(recipe, source) for name, source in named.items() if source}


def _with_vocabulary(recipe: Recipe, cards: dict[str, ModalityCard]) -> dict[str, ModalityCard]:
    """The cards, with the text vocabulary that the recipe asks for where a tokenizer uses one."""
    using = [name for name, card in cards.items() if uses_vocabulary(name, card)]
    if not using:
        return cards
    texts = {name: card.labels_generation for name, card in cards.items() if card.kind["kind"] == Text.name}
    vocabulary = vocabulary_card(recipe, texts or {CAPTIONS: _captions_generation(recipe)})
    return {
        name: replace(card, tokens=replace(card.tokens, vocabulary=vocabulary))
        if name in using and card.tokens
        else card
        for name, card in cards.items()
    }


def _captions_generation(recipe: Recipe) -> str:
    """That of the labels which the modality of captions would have, had the recipe one."""
    recipe = recipe.model_copy(update={"modalities": {CAPTIONS: ModalitySettings.model_validate({"keep": "labels"})}})
    (group,) = _group(recipe)
    return _card(recipe, CAPTIONS, group, group.step(recipe), {}).labels_generation


@dataclass
class _Group:
    """A labeler of the recipe while steps are being made."""

    reference: str
    labeler: Labeler
    source: WeightsSource | None
    weights: LocalWeights | None
    settings: ModalitySettings
    environment: tuple[str, ...]
    names: list[str]

    def modality(self, name: str) -> Modality:
        return next(modality for modality in self.labeler.makes if modality.name == name)

    def step(self, recipe: Recipe) -> Step:
        labeler = self.labeler
        return Step(
            name=self.names[0],
            labeler=self.reference,
            params=labeler.params.model_dump(mode="json"),
            weights=self.source,
            batch_size=self.settings.batch_size or labeler.batch_size,
            on=labeler.on,
            modalities=tuple(self.names),
            requires=labeler.requires,
            wants=tuple(name for name in labeler.wants if name in recipe.modalities and name not in self.names),
            cpus=labeler.resources.cpus,
            gpus=labeler.resources.gpus,
            # What is declared is for real networks; tiny ones are there to try a recipe on a small machine.
            memory=Resources().memory if self.source and self.source.source == TINY else labeler.resources.memory,
            environment=self.environment,
        )


def _group(recipe: Recipe) -> list[_Group]:
    """One group per labeler and settings. A modality with no labeler settings of its own joins the labeler of another
    modality that makes it too (dinov2_global joins dinov2)."""
    groups: list[_Group] = []
    explicit = [(n, s) for n, s in recipe.modalities.items() if _is_explicit(s)]
    plain = [(n, s) for n, s in recipe.modalities.items() if not _is_explicit(s)]
    for name, settings in explicit + plain:
        joined = next((g for g in groups if _same(g, name, settings, settings in [s for _, s in plain])), None)
        if joined is None:
            joined = _new_group(recipe, name, settings)
            groups.append(joined)
        joined.names.append(name)
    order = list(recipe.modalities)
    for group in groups:
        group.names.sort(key=order.index)
    return sorted(groups, key=lambda group: order.index(group.names[0]))


def _is_explicit(settings: ModalitySettings) -> bool:
    """Whether the modality has settings of its labeler, so that it joins no other's."""
    return bool(settings.labeler or settings.params or settings.weights or settings.environment)


def _same(group: _Group, name: str, settings: ModalitySettings, plain: bool) -> bool:
    if all(modality.name != name for modality in group.labeler.makes):
        return False
    return plain or (settings.labeler or name, settings.params, settings.weights, settings.environment) == (
        group.reference,
        group.settings.params,
        group.settings.weights,
        group.settings.environment,
    )


def _new_group(recipe: Recipe, name: str, settings: ModalitySettings) -> _Group:
    reference = settings.labeler or name
    labeler_class = _labeler_of(name, settings)
    params = validated(labeler_class.Params, settings.params, f"modalities.{name}.params")
    named = _source_of_weights(recipe, settings, labeler_class)
    source = WeightsSource.of(recipe, named) if named else None
    with at_key(f"modalities.{name}.weights"):
        weights = source.resolve(labeler_class) if source else None
    with at_key(f"modalities.{name}"):
        labeler = _labeler(labeler_class, params, weights.path if weights else None, reference)
    made = [modality.name for modality in labeler.makes]
    if name not in made:
        raise RecipeError(
            f"modalities.{name}: the labeler {reference} makes {', '.join(made)}, not {name!r}; name the modality "
            f"after what it makes"
        )
    return _Group(reference, labeler, source, weights, settings, recipe.pins_of(name), [])


def _labeler(labeler_class: type[Labeler], params: BaseModel, weights: str | None, reference: str) -> Labeler:
    """ValueError or CheckpointError for whatever its class raises."""
    try:
        return labeler_class(params, weights)
    except (ValueError, CheckpointError):
        raise
    except Exception as error:  # a plugin may raise anything
        raise RegistryError(f"the labeler {reference} can't be made: {type(error).__name__}: {error}") from error


def _labeler_of(name: str, settings: ModalitySettings) -> type[Labeler]:
    with at_key(f"modalities.{name}.labeler" if settings.labeler else f"modalities.{name}"):
        return find_labeler(settings.labeler or name)


def _check_stages(recipe: Recipe) -> None:
    for index, stage in enumerate(recipe.resources.stages):
        unknown = [name for name in stage.modalities if name not in recipe.modalities]
        if unknown:
            raise RecipeError(
                f"resources.stages.{index}.modalities: {', '.join(unknown)} aren't among the recipe's modalities, "
                f"{', '.join(recipe.modalities)}"
            )


def _check_environments(recipe: Recipe, steps: Sequence[Step]) -> None:
    """Refuses a stage of the recipe's whose labelers have several environments: its workers are processes, of one."""
    for index, stage in enumerate(recipe.resources.stages):
        found = {step.environment: step.name for step in steps if set(step.modalities) & set(stage.modalities)}
        if len(found) > 1:
            raise RecipeError(
                f"resources.stages.{index}.modalities: {' and '.join(found.values())} have different environments, and "
                f"a stage's workers have one: write a stage for each"
            )


def _check_images(recipe: Recipe) -> None:
    """Refuses what needs images where the corpus has none. RecipeError naming all of it."""
    if recipe.corpus.text is None:
        return
    looking = {name: settings.labeler or name for name, settings in recipe.modalities.items()}
    refused = [
        f"modalities.{name}: {reference} looks at images, and the corpus is of texts; leave it out, or make a dataset "
        f"of its own of a corpus of images"
        for name, reference in looking.items()
        if _labeler_of(name, recipe.modalities[name]).on != "nothing"
    ]
    if recipe.views.count > 1:
        refused.append(f"views.count: {recipe.views.count} views of a text, which has no crops; leave it out")
    if refused:
        raise RecipeError("\n".join(refused))


def _check_weights(recipe: Recipe) -> None:
    """Refuses, before any are fetched, weights that have no default, and those whose licence forbids commercial use
    unless the recipe accepts it. RecipeError naming all of them."""
    settled: set[type[Labeler]] = set()
    refused = []
    for name in sorted(recipe.modalities, key=lambda name: not _is_explicit(recipe.modalities[name])):
        settings = recipe.modalities[name]
        labeler_class = _labeler_of(name, settings)
        if labeler_class in settled and not _is_explicit(settings):
            continue  # it joins the labeler of another modality
        settled.add(labeler_class)
        refused += _refusal(recipe, name, labeler_class)
    if refused:
        raise RecipeError("\n".join(refused))


def _refusal(recipe: Recipe, name: str, labeler_class: type[Labeler]) -> list[str]:
    """Why the recipe's weights for a modality can't be used, if so."""
    settings, weights = recipe.modalities[name], labeler_class.weights
    reference = settings.labeler or name
    if weights is None:
        return [f"modalities.{name}.weights: the labeler {reference} takes no weights"] if settings.weights else []
    source = _source_of_weights(recipe, settings, labeler_class)
    if source is None:
        return [
            f"modalities.{name}: {reference} has no default weights; get them from {weights.source} and give their "
            f"path with `weights:`"
        ]
    refusal = licence_refusal(recipe, f"modalities.{name}", source, weights, "leave the modality out")
    return [refusal] if refusal else []


def _source_of_weights(recipe: Recipe, settings: ModalitySettings, labeler_class: type[Labeler]) -> str | None:
    if labeler_class.weights is None:
        return None
    source = settings.weights or labeler_class.weights.default
    return source if recipe.weights is None or (source or "").startswith(PACKAGE) else recipe.weights


def _order(groups: list[_Group]) -> list[_Group]:
    """Groups after those that they need, otherwise as the recipe lists them."""
    owner = {name: group.names[0] for group in groups for name in group.names}
    done: list[_Group] = []
    waiting = list(groups)
    while waiting:
        ready = next((g for g in waiting if _needs(g, owner) <= {d.names[0] for d in done}), None)
        if ready is None:
            names = ", ".join(group.names[0] for group in waiting)
            raise RecipeError(f"modalities: {names} need each other in a circle")
        done.append(ready)
        waiting.remove(ready)
    return done


def _needs(group: _Group, owner: Mapping[str, str]) -> set[str]:
    for name in group.labeler.requires:
        if name not in owner:
            raise RecipeError(
                f"modalities.{group.names[0]}: needs the modality {name!r}; add `{name}: {{}}` to the recipe"
            )
    wanted = {owner[name] for name in group.labeler.wants if name in owner}
    return ({owner[name] for name in group.labeler.requires} | wanted) - {group.names[0]}


def _card(recipe: Recipe, name: str, group: _Group, step: Step, cards: Mapping[str, ModalityCard]) -> ModalityCard:
    labeler, settings = group.labeler, recipe.modalities[name]
    modality = group.modality(name)
    if step.on == "nothing" and modality.kind.spatial:
        raise RecipeError(
            f"modalities.{name}: {group.reference} looks at nothing, and its kind, {modality.kind.name}, has to follow "
            f"the image: give the labeler `on = 'image'` or `on = 'view'`"
        )
    if step.on == "image" and modality.kind.view_only:
        raise RecipeError(
            f"modalities.{name}: a {modality.kind.name} can't be cropped; its labeler has to work on views"
        )
    for need in step.needs:
        if step.on != "view" and cards[need].on == "view" and cards[need].label_kind.spatial:
            raise RecipeError(f"modalities.{name}: looks at whole images, but {need!r} is made on views only")
    with at_key(f"modalities.{name}"):
        labeler.check_needs({need: cards[need].label_kind for need in step.needs})
    tokens = None if settings.keep == "labels" else tokens_card(recipe, name, modality.kind, modality.tokenizer)
    keep = settings.keep or ("tokens" if tokens else "labels")
    if tokens is None and keep != "labels":
        raise RecipeError(f"modalities.{name}.keep: nothing tokenises it, so only `labels` can be kept")
    weights = labeler.weights
    return ModalityCard(
        kind=json.loads(json.dumps(modality.kind.describe())),  # as it is read back
        labeler=identity_of(LABELER_GROUP, group.reference, Labeler),
        version=labeler.version,
        on=step.on,
        params=step.params,
        weights=WeightsCard(told(group.source.source), group.weights.sha256, weights.licence_of(group.source.source))
        if weights and group.weights and group.source
        else None,
        licence=labeler.licence,
        requires={need: cards[need].labels_generation for need in step.needs},
        tokens=tokens,
        keeps_tokens=keep in ("tokens", "both"),
        keeps_labels=keep in ("labels", "both"),
        environment=list(step.environment),
        common={"seed": recipe.seed, "views": recipe.views.model_dump(), "corpus": reading_of(recipe)},
    )


def reading_of(recipe: Recipe) -> dict[str, Any]:
    """How the recipe has the corpus read."""
    return recipe.corpus.model_dump(exclude={"url", "storage_options"}, exclude_defaults=True)
