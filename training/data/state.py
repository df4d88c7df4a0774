"""Where a run is, as one number, and what that number is worth: whose order and whose masking it counts in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, Field, ValidationError

from ...pipeline.dataset.manifest import DatasetError
from .opening import OpenData, OpenDataset, open_data
from .recipe import TrainingRecipe
from .ride_along import PIXELS, is_embeddings

_PARTS = {
    "order": "datasets, their units, weights, repeats, views, seed or window differ, and its position would mean other "
    "samples",
    "masking": "modalities, their tokens, inputs and targets, masking or budgets differ, and the same samples would be "
    "masked otherwise",
}


Count: TypeAlias = Annotated[int, Field(strict=True, ge=0)]


class _State(BaseModel):
    """position: of the next sample. manifests: by dataset, from which epoch on it is as of which one. workers: of whom
    it is one's, in a DataLoader's worker."""

    position: Annotated[Count, Field(lt=2**62)]  # which leaves room to go on
    order: str
    masking: str
    manifests: dict[str, list[tuple[Count, Count]]]
    workers: Count | None = None


def state_at(data: OpenData, position: int) -> dict[str, Any]:
    """The state of a run whose next sample stands at the position; JSON can hold it."""
    manifests = {one.mixed.name: [list(era) for era in one.eras] for one in data.datasets}
    digests = {"order": data.mixture.digest, "masking": masking_digest(data)}
    return {"position": position, **digests, "manifests": manifests}


def resumed(recipe: TrainingRecipe, data: OpenData, state: Mapping[str, Any]) -> OpenData:
    """What the recipe names, as it was when the state was saved. What has grown since comes from its next epoch on, or
    is refused, as the recipe has it.

    Raises DatasetError where the state is of another recipe, or no state at all, and what `open_data` raises.
    """
    told = _checked(state)
    known = told.manifests
    if known != {one.mixed.name: list(one.eras) for one in data.datasets}:
        data = open_data(recipe, known)
    _check(data, state)
    grown = {place: one for place, one in enumerate(data.datasets) if one.grown}
    if not grown:
        return data
    for one in grown.values():
        if data.settings.grown == "refuse":
            more = sum(unit.count for unit in one.grown)
            raise DatasetError(
                f"{one.mixed.name} ({one.mixed.reader.store.url}) has grown by {more:,} samples since the state was "
                f"saved: `grown: next_epoch` takes them from its next epoch on"
            )
    more_eras = {
        one.mixed.name: [*one.eras, (data.mixture.next_epoch(place, told.position), one.number)]
        for place, one in grown.items()
    }
    return open_data(recipe, {**known, **more_eras})


def _checked(state: Mapping[str, Any]) -> _State:
    try:
        return _State.model_validate(dict(state))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        has = ", ".join(map(str, state)) or "none"
        raise DatasetError(f"this is no state of batches: {key}: {first['msg']}; it has the keys {has}") from None


def _check(data: OpenData, state: Mapping[str, Any]) -> None:
    mine = state_at(data, 0)
    for part, what in _PARTS.items():
        if state[part] != mine[part]:
            raise DatasetError(
                f"the state is of another recipe: {what}. Give the recipe and the datasets as they were, or begin anew "
                f"without the state"
            )


def masking_digest(data: OpenData) -> str:
    """SHA-256 of all that says how a sample is masked, and what its tokens are."""
    told = [
        data.settings.input_tokens,
        data.settings.target_tokens,
        sorted(data.settings.max_tokens.items()),
        [asdict(scheme) for scheme in data.mixture.schemes],
        [
            [(name, _made_how(one, name), name in inputs, name in targets) for name in one.mixed.modalities]
            for one in data.datasets
            for inputs, targets in [(one.mixed.inputs or (), one.mixed.targets or ())]
        ],
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _made_how(one: OpenDataset, name: str) -> Any:
    """What determines the content of a modality; of pixels, whose samples the order tells, that of the views."""
    if name == PIXELS:
        return [one.manifest.seed, one.manifest.views]
    card = one.manifest.modalities[name]
    return card.labels_generation if is_embeddings(card) else card.tokens_generation
