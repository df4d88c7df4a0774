"""The golden 4M networks, and batches in the form of ml-4m's loader as the tokens that a model takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenloom.training.data.masking import IGNORED, NOTHING, Form
from tokenloom.training.model.config import ModalityConfig, ModelConfig
from tokenloom.training.model.tokens import Sides

Side = dict[str, torch.Tensor]


def golden_config(folder: Path) -> ModelConfig:
    """As the folder's config.json describes it."""
    told = json.loads((folder / "config.json").read_text())
    network = told["hf_config"]
    modalities = [_modality(name, one) for name, one in told["modalities"].items()]
    return ModelConfig(
        tuple(modalities),
        **{name: network[name] for name in ("dim", "encoder_depth", "decoder_depth", "num_heads", "qk_norm")},
        share_embedding=told["share_embedding"],
    )


def _modality(name: str, told: Mapping[str, Any]) -> ModalityConfig:
    roles: dict[str, Any] = {"is_input": told["input"], "is_target": told["target"]}
    if told["type"] == "seq":
        return ModalityConfig(name, "text", told["max_length"], told["vocab_size"], **roles)
    side = round(told["max_tokens"] ** 0.5)
    grid = None if told["learned_pos_emb"] else (side, side)
    form: Form = "pixels" if told["vocab_size"] is None else "grid"
    return ModalityConfig(name, form, told["max_tokens"], told["vocab_size"] or 0, grid=grid, **roles)


def modality_tensors(io: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, Side]:
    """The tensors of each modality."""
    fields = ("tensor", "input_mask", "target_mask", "decoder_attention_mask")
    return {name: {one: torch.from_numpy(io[f"{name}.{one}"]) for one in fields} for name in names}


def selected(
    config: ModelConfig,
    given: Mapping[str, Side],
    inputs: Sequence[str],
    targets: Sequence[str],
    lengths: tuple[int, int],
) -> Sides:
    """What ml-4m's masks select, modality by modality in these orders, cut to so many tokens."""
    forms = {one.name: one.form for one in config.modalities}
    names = list(config.names)
    seen = [_seen(given[name], forms[name], names.index(name)) for name in inputs]
    said = [_said(given[name], forms[name], names.index(name)) for name in targets]
    batch = {"inputs": _joined(seen, lengths[0]), "targets": _joined(said, lengths[1]), "arrays": {}}
    batch["arrays"] = {
        name: one["tensor"].permute(0, 2, 3, 1) for name, one in given.items() if forms[name] == "pixels"
    }
    return Sides.of(config, batch, names)


def _seen(one: Side, form: str, number: int) -> Side:
    used = ~one["input_mask"]
    ids = torch.full(used.shape, NOTHING) if form == "pixels" else one["tensor"].long()
    return _side(used, ids, form, number)


def _said(one: Side, form: str, number: int) -> Side:
    used, ids = ~one["target_mask"], one["tensor"].long()
    if form == "grid":
        return {**_side(used, torch.full(used.shape, NOTHING), form, number), "labels": ids}
    counted = used.cumsum(dim=1) - 1
    used = used & torch.cat([used[:, 1:], torch.zeros_like(used[:, :1])], dim=1)
    made = _side(used, ids, form, number)
    return {**made, "position": counted, "labels": torch.cat([ids[:, 1:], ids[:, :1]], dim=1)}


def _side(used: torch.Tensor, ids: torch.Tensor, form: str, number: int) -> Side:
    places = torch.arange(used.shape[1]).expand(used.shape)
    position = used.cumsum(dim=1) - 1 if form == "text" else places
    return {"used": used, "ids": ids, "position": position, "modality": torch.full(used.shape, number)}


def _joined(parts: Sequence[Side], length: int) -> Side:
    """What is used from the left, in its order."""
    side = {name: torch.cat([one[name] for one in parts], dim=1) for name in parts[0]}
    kept = torch.argsort(~side["used"], dim=1, stable=True)[:, :length]
    side = {name: one.gather(1, kept) for name, one in side.items()}
    side["modality"] = torch.where(side["used"], side["modality"], -1)
    if "labels" in side:
        side["labels"] = torch.where(side["used"], side["labels"], IGNORED)
    return side
