"""How two labels of one modality differ: exactly, or for floats beyond a tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract.instances import InstanceSet

TOLERANCE = {"float16": 2e-2, "float32": 1e-3}
"""How far a float label may move with the size of its batch, as a share of its largest absolute value. Integers and
texts may not move at all, save those that a network's floats are rounded to: a mask may change in a hundredth of its
area, an integer map (classes, normals) in a thousandth of its values."""


def difference(one: Any, other: Any) -> str | None:
    """How two labels differ, beyond TOLERANCE; None where they don't."""
    if type(one) is not type(other):
        return f"{type(one).__name__} and {type(other).__name__}"
    if isinstance(one, np.ndarray):
        return _array_difference(one, other)
    if isinstance(one, InstanceSet):
        return _instances_difference(one, other)
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"the fields {sorted(set(one) ^ set(other))}"
        return next((f"{key}: {found}" for key in one if (found := difference(one[key], other[key]))), None)
    if isinstance(one, float):
        return None if np.isclose(one, other, rtol=TOLERANCE["float32"]) else f"{one} and {other}"
    return None if one == other else f"{one!r} and {other!r}"


def _array_difference(one: np.ndarray, other: np.ndarray) -> str | None:
    if one.shape != other.shape:
        return f"shapes {one.shape} and {other.shape}"
    if one.dtype.kind != "f":
        changed = int((one != other).sum())
        tolerated = one.size // 1000 if one.ndim >= 2 else 0
        return f"{changed} of {one.size} values differ" if changed > tolerated else None
    if one.size == 0:
        return None
    apart = float(np.abs(one.astype(np.float64) - other).max())
    scale = float(np.abs(one.astype(np.float64)).max())
    if apart <= TOLERANCE[str(one.dtype)] * scale:
        return None
    return f"values up to {apart:.3g} apart, where the largest is {scale:.3g}"


def _instances_difference(one: InstanceSet, other: InstanceSet) -> str | None:
    if len(one) != len(other):
        return f"{len(one)} instances and {len(other)}"
    if list(one.labels) != list(other.labels) or list(one.texts or ()) != list(other.texts or ()):
        return "other labels or texts"
    arrays = {"boxes": (one.boxes, other.boxes), "scores": (one.scores, other.scores)}
    arrays |= {name: (one.attributes[name], other.attributes[name]) for name in one.attributes}
    for name, (first, second) in arrays.items():
        found = difference(first, second)
        if found:
            return f"{name}: {found}"
    for first, second in zip(one.masks or (), other.masks or (), strict=True):
        a, b = first.to_array(), second.to_array()
        if (a ^ b).sum() > 0.01 * max(a.sum(), b.sum()):
            return f"a mask differs in {int((a ^ b).sum())} pixels"
    return None
