"""Where a worker computes."""

from __future__ import annotations

import os

from .session import DEVICE, EngineError


def chosen_device() -> str | None:
    """The device that the user names in place of what is found; None where nothing is said."""
    return os.environ.get(DEVICE) or None


def device_for(gpus: float) -> str:
    """The device, as torch names it, of a worker that was given so many GPUs.

    Raises EngineError where it was given some and torch sees none: it would go on, and take a hundred times as long.
    """
    if chosen := chosen_device():
        return chosen
    if not gpus:
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
        raise EngineError(
            f"Ray gave this worker a GPU (CUDA_VISIBLE_DEVICES is {visible}), and torch {torch.__version__} can't use "
            f"it: install a torch that fits the machine's driver, or set {DEVICE}=cpu to compute without GPUs"
        )
    return "cuda"
