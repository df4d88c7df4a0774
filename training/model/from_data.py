"""The modalities of a training recipe's datasets, as a model has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ...labelers.networks.hub import CheckpointError
from ...pipeline.dataset.cards import ModalityCard
from ..data.mixed import common_card, ids_identity
from ..data.mixture import PATCH, Mixture
from ..data.ride_along import PIXELS, is_embeddings
from .config import ModalityConfig, ModelConfig

SENTINELS_AROUND = 2
"""How many tokens more the target of a text may have than the text: all of it is a span between two of them."""


def modalities_of(mixture: Mixture) -> tuple[ModalityConfig, ...]:
    """In the order of the mixture's modalities. What is an input in any dataset is one of the model, and so with
    targets; what is neither, since a recipe draws it and loses it, is left out."""
    return tuple(_modalities(mixture))


def _modalities(mixture: Mixture) -> Iterator[ModalityConfig]:
    for name in mixture.modalities:
        having = [one for one in mixture.datasets if name in one.modalities]
        spec, length = mixture.spec(name), mixture.most(name)
        is_input = any(one.inputs is None or name in one.inputs for one in having)
        is_target = spec is not None and any(one.targets is None or name in one.targets for one in having)
        roles: dict[str, Any] = {"is_input": is_input, "is_target": is_target}
        if not (is_input or is_target):
            continue
        if name == PIXELS:
            side = mixture.size // PATCH
            yield ModalityConfig(name, "pixels", length, grid=(side, side), **roles)
            continue
        card = common_card(mixture.datasets, name)
        told = {**roles, "tokenizer": digest_of(card)}
        if spec is None:
            yield ModalityConfig(name, "embeddings", length, width=int(card.kind["dim"]), **told)
        elif spec.type == "text":
            yield ModalityConfig(name, "text", length + SENTINELS_AROUND, spec.vocabulary, **told)
        else:
            grid = spec.grid if spec.grid and spec.grid[0] * spec.grid[1] == length else None
            yield ModalityConfig(name, "grid", length, spec.vocabulary, grid=grid, **told)


def refuse_other_data(config: ModelConfig, given: Sequence[ModalityConfig], source: str) -> None:
    """Raises CheckpointError, naming the modality and the field, unless the model takes these modalities and says them:
    it may have more. source: of the model, for the message."""
    own = {one.name: one for one in config.modalities}
    for one in given:
        mine = own.get(one.name)
        if mine is None:
            raise CheckpointError(
                f"{source}: has no modality {one.name!r}, which the data have; it has {', '.join(own)}"
            )
        for field in ("is_input", "is_target"):
            if getattr(one, field) and not getattr(mine, field):
                other = "a target" if field == "is_input" else "an input"
                raise CheckpointError(
                    f"{source}: has {one.name} as {other} alone: `inputs` and `targets` say what it is"
                )
        for field in ("form", "vocabulary", "width", "grid", "tokenizer"):
            has, wants = getattr(mine, field), getattr(one, field)
            if has != wants and (field != "tokenizer" or (has and wants)):
                raise CheckpointError(
                    f"{source}: {field} of {one.name} is {has}, and of the data's {wants}; take the datasets that it "
                    f"was trained on, or begin {one.name} anew"
                )
        if one.length > mine.length:
            raise CheckpointError(
                f"{source}: {one.name} has {mine.length:,} places, and the data's has {one.length:,}; `max_tokens` of "
                f"a training recipe makes texts shorter"
            )


def digest_of(card: ModalityCard) -> str:
    """Of what says which token an id is, or which model embeddings are of."""
    if is_embeddings(card):
        told = [card.kind, card.labeler, card.weights and card.weights.sha256]
    else:
        files, spec, vocabulary = ids_identity(card)
        told = [files, spec and asdict(spec), vocabulary]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
