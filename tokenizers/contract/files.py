"""The files in which tokenizers keep their state: config.json, model.safetensors and tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...labelers.contract.kinds import Kind
from .tokenizer import Tokenizer

CONFIG, MODEL, VOCABULARY_FILE = "config.json", "model.safetensors", "tokenizer.json"


def config_file(tokenizer: Tokenizer, **facts: Any) -> dict[str, bytes]:
    """config.json: what `config_of` says."""
    return {CONFIG: json.dumps(config_of(tokenizer, **facts), indent=2).encode() + b"\n"}


def config_of(tokenizer: Tokenizer, **facts: Any) -> dict[str, Any]:
    """Which tokenizer, for which kind, with which parameters, and `facts` beside them."""
    return {
        "tokenizer": type(tokenizer).__name__,
        "version": tokenizer.version,
        "kind": tokenizer.kind.describe(),
        "params": tokenizer.params.model_dump(mode="json"),
        **facts,
    }


def read_config(tokenizer: type[Tokenizer], kind: Kind, files: Mapping[str, bytes]) -> dict[str, Any]:
    """What `config_file` wrote. Raises ValueError unless it is of this tokenizer, this version of it and this kind."""
    try:
        config = json.loads(read(files, CONFIG))
        found = config["tokenizer"], config["version"], config["kind"], config["params"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{CONFIG} isn't a tokenizer's: {error!r}") from None
    wanted = tokenizer.__name__, tokenizer.version, json.loads(json.dumps(kind.describe()))
    for what, there, needed in zip(("tokenizer", "version", "kind"), found, wanted, strict=False):
        if there != needed:
            raise ValueError(f"{CONFIG} was made for the {what} {there}, not for {needed}: fit the tokenizer again")
    return config


def read(files: Mapping[str, bytes], name: str) -> bytes:
    """One of the files. Raises ValueError naming the one that is missing."""
    if name not in files:
        raise ValueError(f"the tokenizer's file {name} is missing; there are {sorted(files)}")
    return files[name]


def model_file(tensors: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """model.safetensors."""
    from safetensors.numpy import save

    return {MODEL: save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()})}


def read_model(files: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    """What `model_file` wrote."""
    from safetensors.numpy import load

    return load(read(files, MODEL))
