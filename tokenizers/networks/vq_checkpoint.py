"""VQ networks in the format of the published 4M tokenizers: config.json beside model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save

from ...labelers.networks.hub import CheckpointError
from ...labelers.networks.state_dicts import fill, read_tensors, seeded
from ..contract.files import CONFIG, MODEL
from .vq_config import VQConfig
from .vq_network import VQ, build

Published = tuple[VQConfig, dict[str, Any], VQ]
"""What the network is made of, everything else in config.json, and the network in evaluation mode on the CPU."""

_DIFFUSION_DEFAULTS = {
    "dec_type": "unet_patched",
    "prediction_type": "v_prediction",
    "beta_schedule": "squaredcos_cap_v2",
    "thresholding": True,
}
"""What a published configuration that doesn't say means, where it isn't VQConfig's default (ml-4m, fourm/vq/vqvae.py).
Our own files say all of it."""


def read_published(folder: str | Path) -> Published:
    """The network in a folder. Without a config.json, the header of the safetensors file must hold the configuration.

    Raises CheckpointError naming the file, and the key, shape or field that is wrong.
    """
    folder = Path(folder)
    path = _model_path(folder)
    tensors = read_tensors(path)
    if (folder / CONFIG).is_file():
        return _network(_parsed((folder / CONFIG).read_bytes(), str(folder / CONFIG)), tensors, str(path))
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    return _network(_from_header(header, str(path)), tensors, str(path))


def read_files(files: Mapping[str, bytes], source: str = "the tokenizer's files") -> Published:
    """As `read_published`, from the contents of config.json and model.safetensors. source: for messages."""
    for name in (CONFIG, MODEL):
        if name not in files:
            raise CheckpointError(f"{source}: there is no {name}; a network is {CONFIG} and {MODEL}")
    try:
        tensors = load(files[MODEL])
    except SafetensorError as error:
        raise CheckpointError(f"{source}: {MODEL} isn't whole ({error}); fetch or write it again") from error
    return _network(_parsed(files[CONFIG], f"{source}: {CONFIG}"), tensors, f"{source}: {MODEL}")


def write_published(network: VQ, extra: Mapping[str, Any]) -> dict[str, bytes]:
    """config.json, with `extra` beside the network's fields, and model.safetensors; ml-4m reads them too."""
    config = network.config.model_dump(mode="json", exclude_none=True)
    if twice := sorted(VQConfig.model_fields.keys() & extra.keys()):
        raise ValueError(f"{twice[0]!r} is a field of the network's own: call it otherwise beside them")
    # ml-4m's default would ask for torch.distributed.
    content = {**config, "sync_codebook": False, **extra}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return {CONFIG: (json.dumps(content, indent=1) + "\n").encode(), MODEL: save(tensors)}


def _model_path(folder: Path) -> Path:
    """model.safetensors, or the folder's only file of that format."""
    if (folder / MODEL).is_file():
        return folder / MODEL
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        what = f"{len(found)} .safetensors files" if found else "no .safetensors file"
        raise CheckpointError(f"{folder}: there is no {MODEL} and {what}; give a folder with {CONFIG} and {MODEL}")
    return found[0]


def _parsed(content: bytes, where: str) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except ValueError as error:
        raise CheckpointError(f"{where} isn't JSON: {error}; fetch or write it again") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{where} holds a {type(config).__name__}, not an object of fields")
    return config


def _from_header(header: Mapping[str, str] | None, where: str) -> dict[str, Any]:
    """The configuration in a safetensors header, whose values are strings that YAML reads (ml-4m, save_safetensors)."""
    config = {name: yaml.safe_load(value) for name, value in (header or {}).items()}
    if not config.keys() & VQConfig.model_fields.keys():
        raise CheckpointError(f"{where}: there is no {CONFIG} beside it, and its header has no configuration: add one")
    return config


def _network(config: dict[str, Any], tensors: dict[str, torch.Tensor], where: str) -> Published:
    """The network filled with exactly these tensors."""
    if any(name.startswith("decoder.input_blocks.") for name in tensors):
        config = {**_DIFFUSION_DEFAULTS, **config}
    try:
        parsed = VQConfig.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        message = f"field {field}: {first['msg']}" if field else first["msg"]
        raise CheckpointError(f"{where}: its configuration can't be used: {message}") from None
    rest = {name: value for name, value in config.items() if name not in VQConfig.model_fields}
    with seeded():
        network = build(parsed)
    return parsed, rest, fill(network, tensors, where)
