"""The configuration of the published 4M checkpoints, and what their tensors tell beside it.

config.json       as ml-4m's FM takes it: the network, and the names of its modalities
modalities.json   what each modality is. The published ones lack it, and it is told from the tensors
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ...labelers.networks.hub import CheckpointError
from ..data.mixture import PATCH
from .config import ModalityConfig, ModelConfig
from .embeddings import sines

INPUTS, TARGETS = "encoder_embeddings", "decoder_embeddings"

_LENGTHS = {
    "caption": 256,
    "color_palette": 23,
    "det": 256,
    "human_poses": 263,
    "metadata": 40,
    "sam_instance": 290,
    "t5_caption": 77,
}
"""Positions of sequences that differ (ml-4m, fourm/data/modality_info.py)."""


class Published(BaseModel):
    """config.json. Fields that can have one value alone are what the network here is; others make another network."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    domains_in: list[str]
    domains_out: list[str]
    image_size: int = Field(default=224, ge=1)
    patch_size: Literal[16] = PATCH
    norm_bias: Literal[False] = False
    act_layer: Literal["SiLU"] = "SiLU"
    gated_mlp: Literal[True] = True
    qk_norm: bool = False
    dim: int = Field(ge=4)
    encoder_depth: int = Field(ge=1)
    decoder_depth: int = Field(ge=1)
    num_heads: int = Field(ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    qkv_bias: Literal[False] = False
    proj_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    num_register_tokens: int = Field(default=0, ge=0)
    decoder_causal_mask: Literal[False] = False
    decoder_sep_mask: Literal[True] = True
    share_modality_embeddings: Literal[True] = True


_OWN = (
    "dim",
    "encoder_depth",
    "decoder_depth",
    "num_heads",
    "mlp_ratio",
    "qk_norm",
    "num_register_tokens",
    "image_size",
)
"""Fields of a ModelConfig that are called the same."""

_MODALITIES = TypeAdapter(tuple[ModalityConfig, ...])


def written(config: ModelConfig) -> dict[str, bytes]:
    """config.json and modalities.json."""
    own = {name: getattr(config, name) for name in _OWN}
    sides = {"domains_in": config.inputs, "domains_out": config.targets}
    names = {side: sorted(one.name for one in found) for side, found in sides.items()}
    published = Published.model_validate({**names, **own})
    contents = {"config.json": published.model_dump(), "modalities.json": [asdict(one) for one in config.modalities]}
    return {name: (json.dumps(content, indent=1) + "\n").encode() for name, content in contents.items()}


def read_config(
    config: bytes, modalities: bytes | None, tensors: Mapping[str, torch.Tensor], where: str
) -> ModelConfig:
    """From the contents of config.json and modalities.json, and by the tensors what these don't say.

    Raises CheckpointError naming the file and the field, or the tensor.
    """
    published = parsed(TypeAdapter(Published), config, f"{where}/config.json")
    _refuse_other_names(published, tensors, where)
    for field, stack in (("encoder_depth", "encoder."), ("decoder_depth", "decoder.")):
        depth, blocks = getattr(published, field), {name.split(".")[1] for name in tensors if name.startswith(stack)}
        if depth != len(blocks):
            raise CheckpointError(
                f"{where}/config.json: {field}: {depth}, and model.safetensors has {len(blocks)} blocks"
            )
    if modalities is None:
        names = sorted({*published.domains_in, *published.domains_out})
        given = tuple(_told(name, tensors, where) for name in names)
    else:
        given = parsed(_MODALITIES, modalities, f"{where}/modalities.json")
        for domains, side in ((published.domains_in, "is_input"), (published.domains_out, "is_target")):
            named = sorted(one.name for one in given if getattr(one, side))
            if named != sorted(domains):
                raise CheckpointError(
                    f"{where}/modalities.json: {side} is true of {_list(named)}, and in config.json of "
                    f"{_list(domains)}; take both files of one checkpoint"
                )
    own = {name: getattr(published, name) for name in _OWN}
    try:
        return ModelConfig(given, **own, share_embedding=_shared(tensors, where))
    except ValueError as error:
        raise CheckpointError(f"{where}/config.json: {error}") from None


def modality_of(name: str) -> tuple[str, str]:
    """The side and the modality that a tensor is of, "" twice for those of the network itself."""
    side, _, rest = name.partition(".")
    return (side, rest.partition(".")[0]) if side in (INPUTS, TARGETS) else ("", "")


def parsed(adapter: TypeAdapter[Any], content: bytes, path: str) -> Any:
    """What a file's JSON holds. Raises CheckpointError naming the file, by its `path`, and the field."""
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise CheckpointError(f"{path}: {f'field {field}: ' if field else ''}{what}") from None


def _refuse_other_names(published: Published, tensors: Mapping[str, torch.Tensor], where: str) -> None:
    for domains, key, side in (
        (published.domains_in, "domains_in", INPUTS),
        (published.domains_out, "domains_out", TARGETS),
    ):
        there = {name for found, name in map(modality_of, tensors) if found == side}
        for names, has, lacks in (
            (set(domains) - there, f"config.json: {key}", "model.safetensors"),
            (there - set(domains), f"model.safetensors: {side}", f"{key} of config.json"),
        ):
            if names:
                raise CheckpointError(
                    f"{where}/{has} has {_list(names)}, which {lacks} lacks; take both files of one checkpoint"
                )


def _told(name: str, tensors: Mapping[str, torch.Tensor], where: str) -> ModalityConfig:
    """What the tensors of a modality tell of it."""
    sides = [side for side in (INPUTS, TARGETS) if f"{side}.{name}.mod_emb" in tensors]
    begins = tuple(f"{side}.{name}." for side in sides)
    found = {key.split(".", 2)[2]: one for key, one in tensors.items() if begins and key.startswith(begins)}
    roles: dict[str, Any] = {"is_input": INPUTS in sides, "is_target": TARGETS in sides}
    positions = found.get("pos_emb")
    if not sides or positions is None or positions.ndim != 3:
        raise CheckpointError(f"{where}/model.safetensors: {name} lacks mod_emb or pos_emb (1, places, dim)")
    places, dim = positions.shape[1:]
    side = round(places**0.5)
    grid = (side, side) if side * side == places else None
    names = ("token_emb.weight", "proj.weight", "emb_proj.weight")
    key = next((key for key in names if key in found and found[key].ndim == 2), None)
    if key is None:
        raise CheckpointError(f"{where}/model.safetensors: {name} has none of {', '.join(names)} (numbers, numbers)")
    if key == "proj.weight":
        return _checked(where, name, "pixels", places, grid=grid, **roles)
    if key == "emb_proj.weight":
        return _checked(where, name, "embeddings", _LENGTHS.get(name, places), width=found[key].shape[1], **roles)
    vocabulary = found[key].shape[0]
    if _same(sines(None, places, dim), positions):
        return ModalityConfig(name, "text", _LENGTHS.get(name, places), vocabulary, **roles)
    in_space = grid is not None and _same(sines(grid, places, dim), positions)
    return ModalityConfig(name, "grid", places, vocabulary, grid=grid if in_space else None, **roles)


def _checked(where: str, *args: Any, **fields: Any) -> ModalityConfig:
    try:
        return ModalityConfig(*args, **fields)
    except ValueError as error:
        raise CheckpointError(f"{where}/model.safetensors: {error}") from None


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other.float(), atol=1e-2)


def _shared(tensors: Mapping[str, torch.Tensor], where: str) -> bool:
    """Whether the logits of targets are by their embeddings. Raises CheckpointError where the two sides say otherwise
    which modality it is."""
    for name, one in tensors.items():
        side, modality = modality_of(name)
        if side == TARGETS and name.endswith(".mod_emb"):
            other = tensors.get(f"{INPUTS}.{modality}.mod_emb")
            if other is not None and not torch.equal(one, other):
                raise CheckpointError(
                    f"{where}/model.safetensors: {name} is another than {INPUTS}.{modality}.mod_emb, and they must be "
                    f"the same (share_modality_embeddings)"
                )
    pairs = [
        (one, tensors.get(name.replace(".to_logits.", ".token_emb.")))
        for name, one in tensors.items()
        if name.endswith(".to_logits.weight")
    ]
    return all(other is not None and torch.equal(one, other) for one, other in pairs)


def _list(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
