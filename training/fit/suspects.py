"""Who made a step one that had to be left out: which modalities of which samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.storage.store import StorageError
from ..data.opening import OpenData

_NAMED = 5
"""Samples, at most, that a report names."""


@torch.no_grad()
def sample_losses(
    forward: Callable[[Mapping[str, Any]], tuple[Tensor, Sequence[int]]], batch: Mapping[str, Any], world: int
) -> tuple[np.ndarray, np.ndarray]:
    """The positions of a step's samples, int64 (n,), and of each its mean cross-entropy by target modality, float64
    (n, m), -inf where it has none to say.

    forward: of a batch of one sample the sums of cross-entropies and the counts. Called by all processes together.
    """
    rows = []
    for row in range(len(batch["positions"])):
        sums, counts = forward(_row(batch, row))
        rows.append([total / n if n else -math.inf for total, n in zip(sums.tolist(), counts, strict=True)])
    positions, losses = batch["positions"].long(), torch.tensor(rows, dtype=torch.float64)
    if world > 1:
        parts = [torch.zeros_like(positions) for _ in range(world)], [torch.zeros_like(losses) for _ in range(world)]
        for own, all_of_them in zip((positions, losses), parts, strict=True):
            dist.all_gather(all_of_them, own)
        positions, losses = torch.cat(parts[0]), torch.cat(parts[1])
    return positions.numpy(), losses.numpy()


def suspects(
    positions: np.ndarray, losses: np.ndarray, modalities: Sequence[str], name: Callable[[int], str]
) -> list[str]:
    """Whom to look at, in words, as `sample_losses` tells of them: whatever isn't finite or, where all is, what is
    largest for its modality. name: of the sample at a position."""
    odd = np.isnan(losses) | np.isposinf(losses)
    if odd.any(axis=1).all():
        which = [modality for place, modality in enumerate(modalities) if odd[:, place].any()]
        return [f"every sample of the step, in {', '.join(which)}: the weights themselves are at fault"]
    said = []
    if not odd.any():
        said.append("no sample by itself; the largest losses for their modality are")
        usual = np.nanmedian(np.where(np.isfinite(losses), losses, np.nan), axis=0)
        order = np.argsort(np.where(np.isfinite(losses), losses / np.maximum(usual, 1e-9), -np.inf), axis=None)[::-1]
    else:
        order = np.flatnonzero(odd.ravel())
    for place in order[:_NAMED].tolist():
        row, column = divmod(place, losses.shape[1])
        if losses[row, column] != -math.inf:
            said.append(f"{modalities[column]} of {name(int(positions[row]))}: {losses[row, column]:.4g}")
    if odd.sum() > _NAMED:
        said.append(f"and {odd.sum() - _NAMED} more")
    return said


def sample_name(data: OpenData, position: int) -> str:
    """Dataset, key and view of the sample at a position; where its unit can't be read, its place there."""
    ((source, places),) = data.mixture.places(np.array([position]))
    dataset = data.datasets[source]
    unit, row, view = dataset.units[int(places.unit[0])], int(places.row[0]), int(places.view[0])
    try:
        key = dataset.mixed.reader.columns.keys(unit, dataset.mixed.tokenised[0])[row]
    except (DatasetError, StorageError, FileNotFoundError):
        key = f"sample {row} of unit {unit.name}"
    return f"{key} ({dataset.mixed.name}, view {view})"


def _row(batch: Mapping[str, Any], row: int) -> dict[str, Any]:
    return {name: one[row : row + 1] if isinstance(one, Tensor) else _row(one, row) for name, one in batch.items()}
