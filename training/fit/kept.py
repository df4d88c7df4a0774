"""What of a recipe an output stands for: settings that can't change while a training goes on there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...pipeline.storage.store import Store
from ..data.recipe import TrainingRecipe

_MODEL = ("size", "dim", "depth", "heads", "qk_norm", "registers", "tied", "embedding_std", "start")
_TRAIN = (
    "steps",
    "tokens",
    "base_learning_rate",
    "warmup_tokens",
    "weight_decay",
    "betas",
    "clip",
    "spike",
    "loss",
    "seed",
)


class OtherTrainingError(ValueError):
    """An output that holds another training."""


def kept_settings(recipe: TrainingRecipe) -> dict[str, Any]:
    """By key. Of the rest the outcome depends in its last bits alone, or not at all; the data have a state of their
    own, which tells what differs."""
    assert recipe.model is not None
    assert recipe.train is not None
    model, train = recipe.model.model_dump(mode="json"), recipe.train.model_dump(mode="json")
    return {
        **{f"model.{name}": model[name] for name in _MODEL},
        **{f"train.{name}": train[name] for name in _TRAIN},
        "data.batch_size": recipe.data.batch_size,
    }


def refuse_others(store: Store, saved: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Raises OtherTrainingError where settings that were saved with a checkpoint aren't these."""
    if not {"settings", "model", "data"} <= saved.keys():
        raise OtherTrainingError(
            f"{store.url}: its checkpoints are of something else than a training (they tell "
            f"{', '.join(saved) or 'nothing'} of it); give another train.output"
        )
    there = saved["settings"]
    if odd := [name for name in mine["settings"] if there.get(name) != mine["settings"][name]]:
        told = "; ".join(f"{name} is {mine['settings'][name]}, and was {there.get(name)}" for name in odd)
        raise OtherTrainingError(
            f"{store.url} holds another training: {told}. Give the recipe as it was, or another train.output; "
            f"model.start: {store.url} begins there with the weights of this one"
        )
    if saved["model"] != mine["model"]:
        before, now = ({one["name"]: one for one in told["model"]["modalities"]} for told in (saved, mine))
        odd = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        what = f"{', '.join(odd)} differ in length, vocabulary, role or tokenizer" if odd else "their order differs"
        raise OtherTrainingError(
            f"{store.url} holds a training on other modalities: {what}. Give the datasets as they were, or another "
            f"train.output; model.start: {store.url} begins there with the weights of this one"
        )
