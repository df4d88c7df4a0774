"""Seconds and memory of what runs on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch


@dataclass(frozen=True)
class Spent:
    """peak_mib: the most memory that tensors held on the GPU, those that were there before among them."""

    seconds: float
    peak_mib: float | None


def on_gpu(device: str) -> bool:
    return device.startswith("cuda")


def spent(device: str, action: Callable[[], Any]) -> Spent:
    """What an action takes until the device has done all of it."""
    if on_gpu(device):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    began = perf_counter()
    action()
    if not on_gpu(device):
        return Spent(perf_counter() - began, None)
    torch.cuda.synchronize()
    return Spent(perf_counter() - began, round(torch.cuda.max_memory_allocated() / 2**20, 1))


def inference(device: str, dtype: str | None) -> AbstractContextManager[Any]:
    """As the engine runs models: without gradients, and under autocast to `dtype` where there is one."""
    stack = ExitStack()
    stack.enter_context(torch.inference_mode())
    if dtype is not None:
        stack.enter_context(torch.autocast(device, dtype=getattr(torch, dtype)))
    return stack


def per_second(count: int, seconds: Sequence[float]) -> float:
    """How many a second, by the median of the rounds."""
    return round(count / median(seconds), 2)


def median_ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """The median of the rounds' ratios: what slows a machine down for a while slows both down."""
    return round(median(a / b for a, b in zip(one, other, strict=True)), 3)
