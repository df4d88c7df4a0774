"""Checkpoints of models: a folder with config.json, modalities.json and model.safetensors, as 4M's are published.

A large model's tensors lie in several files (see `files`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors import SafetensorError

from ...labelers.networks.hub import CheckpointError
from .config import ModelConfig
from .files import INDEX, MODEL, file_of, index_of, names_by_file, read_files
from .fourm import FourM
from .published import modality_of, read_config, written

Tensors: TypeAlias = Mapping[str, torch.Tensor]

_PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".distcp")


def read_model(folder: str | Path) -> FourM:
    """The model in a folder, in evaluation mode on the CPU, float32. Published ones need no modalities.json.

    Raises CheckpointError naming the file, and the key, field or modality that is wrong.
    """
    config, tensors = _read(Path(folder))
    with torch.device("meta"):
        model = FourM(config)
    _refuse_differences(model.state_dict(), tensors, Path(folder))
    model = model.to_empty(device="cpu").tie()
    model.load_state_dict(tensors)
    return model.eval()


def write_model(config: ModelConfig, tensors: Tensors, folder: str | Path) -> None:
    """Writes a model to a new folder, which appears once all of it is there. tensors: its state dict.

    Raises CheckpointError where the folder is there already, or can't be written; then nothing is left of it.
    """
    folder = Path(folder)
    if folder.exists():
        raise CheckpointError(f"{folder}: is there already; give the folder of a new checkpoint")
    begun = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        begun.mkdir(parents=True)
        names = names_by_file(tensors)
        for file, own in names.items():
            (begun / file).write_bytes(file_of({name: tensors[name] for name in own}))
        for name, content in {**index_of(names, tensors), **written(config)}.items():
            (begun / name).write_bytes(content)
        for path in (*begun.iterdir(), begun):
            _sync(path)
        begun.rename(folder)
        _sync(folder.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: can't be written ({error}); nothing was left there") from error
    finally:
        shutil.rmtree(begun, ignore_errors=True)


@dataclass(frozen=True)
class Start:
    """What a model was started from. taken: by its modality what the checkpoint calls it. new: sides of modalities that
    the checkpoint lacks, as encoder_embeddings.NAME. left_out: modalities of the checkpoint that the model lacks."""

    taken: Mapping[str, str]
    new: tuple[str, ...]
    left_out: tuple[str, ...]


@torch.no_grad()
def start_from(model: FourM, folder: str | Path, called: Mapping[str, str | None] | None = None) -> Start:
    """Gives a model, which is initialised, the weights of a checkpoint with other modalities.

    The network itself must be the same. Of a modality that both have, all is taken but sines and cosines; what the
    checkpoint lacks stays as it is. called: by the model's modality what the checkpoint calls it, None where it is to
    begin anew; others by their own name or 4M's (`depth`: tok_depth@224, `pixels`: rgb@224).

    Raises CheckpointError naming the file, and the key or modality that is wrong.
    """
    folder = Path(folder)
    config, tensors = _read(folder)
    taken = _pairs(model.config, config, called or {}, folder)
    own = dict(model.state_dict(keep_vars=True))
    learned = {
        name: one for name, one in own.items() if isinstance(one, torch.nn.Parameter) or not modality_of(name)[0]
    }
    given = {name: one for name, one in tensors.items() if not modality_of(name)[0]}
    new: dict[str, None] = {}
    for name in learned:
        side, modality = modality_of(name)
        if not side:
            continue
        source = name.replace(f".{modality}.", f".{taken.get(modality)}.", 1)
        if source in tensors:
            given[name] = tensors[source]
        else:
            new[f"{side}.{modality}"] = None
    _refuse_differences(learned, given, folder, {name for name in learned if not modality_of(name)[0]})
    if model.config.share_embedding and not config.share_embedding:
        raise CheckpointError(
            f"{folder}/{MODEL}: its logits aren't by the embeddings of its tokens (to_logits.weight is another than "
            f"token_emb.weight), and those of the model are: give it share_embedding: false"
        )
    for name, tensor in given.items():
        learned[name].copy_(tensor)
    return Start(taken, tuple(new), tuple(name for name in config.names if name not in taken.values()))


def _pairs(own: ModelConfig, given: ModelConfig, called: Mapping[str, str | None], folder: Path) -> dict[str, str]:
    """The modalities that both have, by the own name the checkpoint's."""
    theirs = {one.name: one for one in given.modalities}
    taken: dict[str, str] = {}
    for one in own.modalities:
        name = called.get(one.name) if one.name in called else _found(one.name, theirs)
        if name is None:
            continue
        if name not in theirs:
            raise CheckpointError(f"{folder}: has no modality {name!r}; it has {', '.join(theirs)}")
        other = theirs[name]
        for field in ("form", "vocabulary", "width", "tokenizer"):
            mine, its = getattr(one, field), getattr(other, field)
            if mine != its and (field != "tokenizer" or (mine and its)):
                raise CheckpointError(
                    f"{folder}: {field} of {name} is {its}, and of the model's {one.name} {mine}; take a dataset whose "
                    f"tokens are the checkpoint's, or have {one.name} begin anew"
                )
        taken[one.name] = name
    if unknown := sorted(called.keys() - set(own.names)):
        raise CheckpointError(f"{folder}: {unknown[0]!r} is no modality of the model, which has {', '.join(own.names)}")
    return taken


def _found(name: str, theirs: Mapping[str, object]) -> str | None:
    """What 4M calls a modality, where the checkpoint has it in one size alone."""
    if name in theirs:
        return name
    known = "rgb" if name == "pixels" else f"tok_{name}"
    found = [one for one in theirs if one.partition("@")[0] == known]
    return found[0] if len(found) == 1 else None


def _refuse_differences(own: Tensors, given: Tensors, folder: Path, needed: Collection[str] | None = None) -> None:
    """Raises CheckpointError unless a checkpoint has exactly the tensors of a model; with `needed`, those at least."""
    where = f"{folder}/{MODEL}"
    for what, names in (
        ("lacks {0}", (own.keys() if needed is None else needed) - given.keys()),
        ("has {0}, which the model lacks", given.keys() - own.keys()),
    ):
        if names:
            more = f" ({len(names) - 1:,} more so)" if len(names) > 1 else ""
            raise CheckpointError(f"{where}: {what.format(min(names))}{more}; the model is another")
    for name, tensor in given.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(f"{where}: {name} is of shape {tuple(tensor.shape)}, not {tuple(own[name].shape)}")


def _read(folder: Path) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    is_model = f"a model is a folder with config.json and {MODEL}"
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; {is_model}")
    for name, other in (("config.json", ""), (MODEL, INDEX)):
        if not any((folder / one).is_file() for one in (name, other)):
            others = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
            why = f"{others[0]} might run code, and isn't read: convert it to {MODEL}" if others else is_model
            raise CheckpointError(f"{folder}: has no {name}; {why}")
    tensors = read_files(folder)
    told = folder / "modalities.json"
    modalities = told.read_bytes() if told.is_file() else None
    return read_config((folder / "config.json").read_bytes(), modalities, tensors, str(folder)), tensors


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
