"""Where a run is, as one number, and what that number is worth: whose order and whose masking it counts in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ...pipeline.dataset.manifest import DatasetError
from .opening import OpenData

_PARTS = {
    "order": "datasets, their units, weights, repeats, views, seed or window differ, and its position would mean other "
    "samples",
    "masking": "modalities, their tokens, inputs and targets, masking or budgets differ, and the same samples would be "
    "masked otherwise",
}


def state_at(data: OpenData, position: int) -> dict[str, Any]:
    """The state of a run whose next sample stands at the position; JSON can hold it."""
    return {"position": position, "order": data.mixture.digest, "masking": masking_digest(data)}


def check_state(data: OpenData, state: Mapping[str, Any]) -> None:
    """Raises DatasetError where the state is of another recipe, or no state at all."""
    if not {"position", *_PARTS} <= set(state):
        raise DatasetError(f"this is no state of batches: it has the keys {', '.join(map(str, state)) or 'none'}")
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
        [asdict(scheme) for scheme in data.mixture.schemes],
        [
            [
                (name, one.manifest.modalities[name].tokens_generation, name in inputs, name in targets)
                for name in one.mixed.modalities
            ]
            for one in data.datasets
            for inputs, targets in [(one.mixed.inputs or (), one.mixed.targets or ())]
        ],
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
