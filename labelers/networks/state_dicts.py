"""Checkpoint files: state dicts in safetensors or torch's own format, read without running what they hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .hub import CheckpointError


def read_tensors(path: str | Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, Any]:
    """The tensors of a .safetensors file or of a state dict that torch.save wrote, on the CPU, mapped from the disk.

    prefixes: only names that begin with one of these are kept. Raises CheckpointError for a file that isn't there, is
    cut short, isn't a checkpoint, or holds pickled code, which is never run.
    """
    import torch
    from safetensors import safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; `weights` must be the path of one checkpoint file")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}  # noqa: SIM118
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # what broken files make the readers raise is of many types
        found = re.search(r"GLOBAL (\S+)", str(error)) if type(error).__name__ == "UnpicklingError" else None
        if found:
            raise CheckpointError(
                f"{path}: holds more than tensors ({found[1]}), which might be code to run, so it isn't read; convert "
                f"it to safetensors where you trust it"
            ) from error
        raise CheckpointError(
            f"{path}: isn't a whole checkpoint ({type(error).__name__}); it may have been cut short, so fetch it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return {
        str(name): tensor
        for name, tensor in content.items()
        if isinstance(tensor, torch.Tensor) and str(name).startswith(prefixes)
    }


def fill(model: Any, tensors: dict[str, Any], weights: str | Path) -> Any:
    """`model` with exactly these tensors, in evaluation mode. Raises CheckpointError naming what differs."""
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shaped = sorted(name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape)
    wrong = [f"{word} {names[0]}" for word, names in (("lacks", missing), ("has an unknown", unknown)) if names]
    wrong += (
        [f"has {shaped[0]} of shape {tuple(tensors[shaped[0]].shape)}, not {tuple(own[shaped[0]].shape)}"]
        if shaped
        else []
    )
    if wrong:
        count = len(missing) + len(unknown) + len(shaped)
        raise CheckpointError(
            f"{weights}: {count} tensors don't fit {type(model).__name__}: it {', it '.join(wrong)}; is it a "
            f"checkpoint of another model?"
        )
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


@contextmanager
def seeded() -> Iterator[None]:
    """Around the making of random weights: torch's generator starts at 0 inside, and goes on as it was outside."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
